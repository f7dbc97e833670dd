"""What one SuperLink carries: `python -m benchmarks.scale --nodes 100 1000 --kib 0 250`.

It starts a SuperLink as the process fleet does, and light clients (`benchmarks.light_clients`) that wait for messages.
It measures the SuperLink's processes while all nodes wait, and then in rounds of messages of several sizes
(`tests/apps/noop`). Everything ends with this process.
"""

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.flwr_command import free_port, run_flwr, wait_for_port
from benchmarks.light_clients import serve
from bouquet.contract.keys import make_key, public_key
from bouquet.contract.tls_files import CA
from bouquet.errors import report_errors
from bouquet.flower.control_client import ControlClient
from bouquet.host.connection import NAME, write_connection
from bouquet.oneshot.certificates import ensure
from bouquet.polling import poll_until
from bouquet.settings.env import Directories
from bouquet.settings.host import PROJECT
from bouquet.settings.oneshot import CertificateSettings

NOOP = PROJECT / "tests" / "apps" / "noop"
NODES_PER_PROCESS = 500
ONLINE_SECONDS = 300.0
"""Time for all light clients to be online."""
SETTLE_SECONDS = 25.0
"""Wait until each node has made a heartbeat and is in its second pull."""
SAMPLE_SECONDS = 0.5
MIB = 2**20


@dataclass(frozen=True)
class SuperLink:
    """A running SuperLink.

    Attributes:
        process: Its first process; the others are its children.
        directories: Its files.
        fleet: Address of the Fleet API.
        control: Address of the Control API.
        certificate: The CA's certificate in PEM; None without TLS.
        environment: The environment in which `flwr run . local-deployment` reaches it.
    """

    process: psutil.Process
    directories: Directories
    fleet: str
    control: str
    certificate: bytes | None
    environment: Mapping[str, str]


@contextmanager
def superlink(folder: Path, *, insecure: bool) -> Iterator[SuperLink]:
    """Start a SuperLink with its files in `folder`, and stop it afterwards."""
    names = ("run", "state", "leases", "authority", "server", "identities")
    directories = Directories(**{name: folder / name for name in names})
    directories.run.mkdir()
    if not insecure:
        ensure(CertificateSettings((), None, "", directories))
    fleet, control = (f"127.0.0.1:{free_port()}" for _ in range(2))
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": str(PROJECT / "deploy"),
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "BOUQUET_RUN_DIR": str(directories.run),
        "BOUQUET_STATE_DIR": str(directories.state),
        "BOUQUET_LEASE_DIR": str(directories.leases),
        "BOUQUET_SERVER_DIR": str(directories.server),
        "BOUQUET_CACHE_DIR": str(folder / "cache"),
        "BOUQUET_RESULTS_DIR": str(folder / "results"),
        "FLEET_ADDRESS": fleet,
        "CONTROL_ADDRESS": control,
        "RUNTIME_ADDRESS": "127.0.0.1:0",
        "INSECURE": str(int(insecure)),
        "EXECUTOR_PRELOAD": "flwr",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    with (folder / "superlink.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bouquet.superlink"], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        wait_for_port(int(control.rpartition(":")[2]))
        certificate = None if insecure else (directories.server / CA).read_bytes()
        write_connection(control, folder / "flwr", certificate)
        yield SuperLink(psutil.Process(process.pid), directories, fleet, control, certificate, environment)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


class LightClients:
    """Light clients in processes of their own, within a `with` block.

    Args:
        link: Their SuperLink.
        number: How many nodes.
    """

    def __init__(self, link: SuperLink, number: int) -> None:
        keys: list[bytes | None] = [None] * number
        if link.certificate is not None:
            with ControlClient(link.control, link.certificate) as api:
                for partition_id in range(number):
                    keys[partition_id] = key = make_key()
                    api.register(public_key(key))
        nodes = list(enumerate(keys))
        context = multiprocessing.get_context("spawn")
        self._number = number
        self._pipes, self._processes = [], []
        for start in range(0, number, NODES_PER_PROCESS):
            ours, theirs = context.Pipe()
            arguments = (theirs, link.fleet, link.certificate, nodes[start : start + NODES_PER_PROCESS])
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> "LightClients":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def take(self) -> dict[str, Any]:
        """Return what all clients have counted since the last call."""
        total: dict[str, Any] = {}
        for pipe in self._pipes:
            pipe.send("tally")
        for pipe in self._pipes:
            for name, value in pipe.recv().items():
                if name == "failures":
                    reasons = total.setdefault(name, {})
                    reasons |= {reason: count + reasons.get(reason, 0) for reason, count in value.items()}
                elif name == "slowest heartbeat":
                    total[name] = max(total.get(name, 0.0), value)
                else:
                    total[name] = total.get(name, 0) + value
        return total

    def await_online(self) -> float:
        """Return how many seconds it took until all nodes were online; raise `TimeoutError` if they are not."""
        start = time.monotonic()
        if not poll_until(lambda: self.take()["online"] == self._number, ONLINE_SECONDS, 0.5):
            raise TimeoutError(f"not all of {self._number} nodes are online after {ONLINE_SECONDS:g} s: {self.take()}")
        return time.monotonic() - start

    def cpu_seconds(self) -> float:
        """Return the CPU time of the clients' processes."""
        times = [psutil.Process(process.pid).cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times)


class Watch:
    """The cost of a SuperLink's processes during a block: `with Watch(link) as watch: ...`.

    Attributes:
        seconds: Duration of the block.
        cpu: CPU time by process name, in seconds.
        pss: Peak memory by process name, in bytes; n processes that share a page count an nth of it each.
        threads: Most threads by process name.
        files: Most open files, sockets included, by process name.
        message_files: Most bytes of small message files, which are in memory in a container, and of large ones.
    """

    def __init__(self, link: SuperLink) -> None:
        self._link = link
        self._ended = threading.Event()
        self._first: dict[int, float] = {}
        self._last: dict[int, tuple[str, float]] = {}
        self.seconds = 0.0
        self.cpu: dict[str, float] = {}
        self.pss: dict[str, int] = {}
        self.threads: dict[str, int] = {}
        self.files: dict[str, int] = {}
        self.message_files = [0, 0]

    def __enter__(self) -> "Watch":
        self._started = time.monotonic()
        self._sample(first=True)
        self._sampler = threading.Thread(target=self._keep_sampling, daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._started
        self._ended.set()
        self._sampler.join()
        self._sample()
        for pid, (name, seconds) in self._last.items():
            self.cpu[name] = self.cpu.get(name, 0.0) + seconds - self._first.get(pid, 0.0)

    def as_json(self) -> dict[str, Any]:
        """Return the measurements; memory in MiB."""
        return {
            "seconds": round(self.seconds, 1),
            "cpu": {name: round(seconds, 2) for name, seconds in self.cpu.items()},
            "pss": {name: round(size / MIB) for name, size in self.pss.items()},
            "threads": self.threads,
            "files": self.files,
            "message files": [round(size / MIB) for size in self.message_files],
        }

    def _keep_sampling(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self, *, first: bool = False) -> None:
        sums: dict[str, list[int]] = {}
        with suppress(psutil.NoSuchProcess):
            for process in [self._link.process, *self._link.process.children(recursive=True)]:
                with suppress(psutil.Error):
                    name, times = re.sub(r"-\d+$", "", process.name()), process.cpu_times()
                    found = (process.memory_full_info().pss, process.num_threads(), process.num_fds())
                    sums[name] = [a + b for a, b in zip(sums.get(name, (0, 0, 0)), found, strict=True)]
                    self._last[process.pid] = (name, times.user + times.system)
                    if first:
                        self._first[process.pid] = times.user + times.system
        for name, values in sums.items():
            for peaks, value in zip((self.pss, self.threads, self.files), values, strict=True):
                peaks[name] = max(peaks.get(name, 0), value)
        folders = (self._link.directories.run, self._link.directories.state)
        sizes = [_size(folder / "messages") for folder in folders]
        self.message_files = [max(pair) for pair in zip(self.message_files, sizes, strict=True)]


def _size(folder: Path) -> int:
    size = 0
    with suppress(OSError):
        for kind in os.scandir(folder):
            for entry in os.scandir(kind.path):
                with suppress(FileNotFoundError):
                    size += entry.stat().st_size
    return size


def measure(nodes: int, sizes: Sequence[int], *, trips: int, idle: float, insecure: bool) -> Iterator[dict[str, Any]]:
    """Yield measurements of one SuperLink: without nodes, with waiting ones, and of rounds.

    Args:
        nodes: Number of light clients.
        sizes: Size of the model in each message and reply, in KiB, for each series of rounds.
        trips: Rounds in a series, after a first one that is not counted.
        idle: How long to watch the waiting nodes, in seconds.
        insecure: Neither TLS nor node keys.
    """
    start = {"nodes": nodes, "tls": not insecure}
    with (
        tempfile.TemporaryDirectory(prefix="bouquet-scale-") as folder,
        superlink(Path(folder), insecure=insecure) as link,
    ):
        time.sleep(3)
        with Watch(link) as watch:
            time.sleep(3)
        yield {**start, "what": "no nodes", **watch.as_json()}
        with LightClients(link, nodes) as clients:
            yield {**start, "what": "start", "online after": round(clients.await_online(), 1)}
            time.sleep(SETTLE_SECONDS)
            clients.take()
            with Watch(link) as watch:
                time.sleep(idle)
            yield {**start, "what": "waiting", **watch.as_json(), "clients": clients.take()}
            for kib in sizes:
                clients.take()
                used = clients.cpu_seconds()
                config = f"nodes={nodes} trips={trips} model-kib={kib}"
                with Watch(link) as watch:
                    try:
                        output = run_flwr(
                            link.environment, "run", ".", NAME, "--stream", "--run-config", config, app=NOOP
                        )
                    except RuntimeError as error:
                        output = str(error)
                match = re.search(r"noop (\{.*\})", output)
                yield {
                    **start,
                    "what": f"{trips} rounds to all, {trips} to one, and a first one",
                    "kib": kib,
                    "trips": json.loads(match[1]) if match else output[-2000:],
                    **watch.as_json(),
                    "clients": {**clients.take(), "cpu": round(clients.cpu_seconds() - used, 1)},
                }


def main() -> None:
    """Print each measurement as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 1000], help="light clients (default: 100 1000)")
    parser.add_argument("--kib", type=int, nargs="+", default=[0], help="sizes of the model, in KiB (default: 0)")
    parser.add_argument("--trips", type=int, default=3, help="rounds of each size (default: 3)")
    parser.add_argument("--idle", type=float, default=60, help="seconds to watch waiting nodes (default: 60)")
    parser.add_argument("--insecure", action="store_true", help="neither TLS nor node keys")
    options = parser.parse_args()
    for nodes in options.nodes:
        for line in measure(nodes, options.kib, trips=options.trips, idle=options.idle, insecure=options.insecure):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    report_errors(main)
