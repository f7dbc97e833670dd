"""Forked children of a zygote that has imported a framework train, and end as Python processes end.

Each framework is installed from PyPI in an environment of its own, together with the fleet's Flower. Cases with large
packages (12 GB with PyTorch's CUDA) run on request, with the figures of each:

    FRAMEWORKS=all pytest tests/frameworks -rP
"""

import importlib.metadata
import math
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bouquet.executor.channel import Channel
from tests.frameworks.cases import CASES, Case

PROJECT = Path(__file__).parents[2]
VENV = Path(sys.executable).parent
IMPORT_SECONDS = 120
TRAINING_SECONDS = 60
INSTALL_SECONDS = 900
REQUESTED = [case for case in CASES if not case.is_large or os.environ.get("FRAMEWORKS") == "all"]

ZYGOTE = """
import os, sys, threading, time
sys.path.append(PROJECT)
from bouquet.executor import frameworks, worker, zygote
from bouquet.executor.memory_growth import anonymous_mib

flower = {"flower_cpu": time.process_time(), "flower_mib": anonymous_mib()}
python_threads = []
os.register_at_fork(before=lambda: python_threads.append(threading.active_count()))

def work(executor, preload, case):
    os.setpgid(0, 0)
    from tests.frameworks import trainings
    start, cpu = time.perf_counter(), time.process_time()
    loss = getattr(trainings, case)()
    executor.send({
        "loss": loss,
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        **flower,
        "python_threads": python_threads[0],
        "jax": "jax" in sys.modules,
    })
    return 0

worker.work = work
sys.argv += ["--preload", *frameworks.to_preload()]
zygote.main()
"""


@dataclass(frozen=True)
class Zygote:
    """A real zygote in the environment of a case, after its imports."""

    channel: Channel
    pid: int

    def fork(self, number: int, case: Case) -> Channel:
        ours, theirs = Channel.pair()
        self.channel.send({"worker": number, "work": {"case": case.name}}, theirs.fileno())
        theirs.close()
        return ours

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def anonymous_mib(self) -> int:
        _, resident, shared, *_ = map(int, Path(f"/proc/{self.pid}/statm").read_text().split())
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE") >> 20

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))


@pytest.fixture(params=REQUESTED, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    case: Case = request.param
    return case


@pytest.fixture
def python(case: Case, tmp_path: Path) -> Path:
    """The Python of an environment with the packages of the case."""
    if not case.packages:
        return VENV / "python"
    environment = tmp_path / "env"
    flower = f"flwr=={importlib.metadata.version('flwr')}"
    for command in (
        ["venv", "--python", str(VENV / "python"), str(environment)],
        ["pip", "install", "--python", str(environment), flower, *case.packages],
    ):
        done = subprocess.run(
            [VENV / "uv", "--quiet", *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=INSTALL_SECONDS
        )
        if done.returncode and os.environ.get("CI"):
            pytest.fail(done.stderr)
        if done.returncode:
            pytest.skip(f"PyPI does not answer: {done.stderr}")
    return environment / "bin" / "python"


@pytest.fixture
def zygote(case: Case, python: Path, tmp_path: Path) -> Iterator[Zygote]:
    channel, theirs = Channel.pair()
    command = [str(python), "-P", "-c", f"PROJECT = {str(PROJECT)!r}\n{ZYGOTE}"]
    command += ["--channel", str(theirs.fileno()), "--parent", str(os.getpid())]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KERAS", "PYTHON"))}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(PROJECT / "deploy")} | case.environment,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    try:
        assert receive(channel, IMPORT_SECONDS) == {"ready": process.pid}
        yield Zygote(channel, process.pid)
    finally:
        channel.close()
        process.kill()
        process.wait()


def receive(channel: Channel, seconds: float) -> dict[str, Any]:
    assert select.select([channel], [], [], seconds)[0], "no message arrived"
    message, _ = channel.receive()
    assert message is not None, "the process has ended"
    return message


def test_forked_children_train_and_end(case: Case, python: Path, zygote: Zygote) -> None:
    cpu, memory, threads = zygote.cpu_seconds(), zygote.anonymous_mib(), zygote.threads()
    first, second = zygote.fork(1, case), zygote.fork(2, case)  # at the same time
    trained = [receive(first, TRAINING_SECONDS), receive(second, TRAINING_SECONDS)]
    trained.append(receive(zygote.fork(3, case), TRAINING_SECONDS))
    ends = [receive(zygote.channel, TRAINING_SECONDS) for _ in trained]
    assert [end.get("status") for end in ends] == [0, 0, 0]
    for child in trained:
        assert math.isfinite(child["loss"])
        assert child["python_threads"] == 1, "a forked child has none of the others"
        assert not child["jax"], "its threads do not survive a fork"
    first_training = trained[-1]
    print(
        f"{case.name} ({versions(case, python)}): import {cpu - first_training['flower_cpu']:.1f} CPU-s, "
        f"{memory - first_training['flower_mib']} MiB, {threads} threads; first training in a child "
        f"{first_training['seconds']:.1f} s, {first_training['cpu']:.1f} CPU-s"
    )


def versions(case: Case, python: Path) -> str:
    listed = subprocess.run(
        [VENV / "uv", "pip", "freeze", "--python", python], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    wanted = case.packages or ("tensorflow-cpu", "keras", "flwr-datasets")
    return ", ".join(line for line in listed if line.partition("==")[0] in wanted)
