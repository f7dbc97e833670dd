"""The fleet without Docker: the containers' entry points as local processes, under one supervisor.

All files are in `.bouquet/processes/` (`BOUQUET_HOME`): the supervisor's lock, which it holds while it runs, and its
plan; a log and a run folder for each member; the SuperLink's state, leases, caches and results.
"""

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from bouquet.contract.fleet_size import write_size
from bouquet.contract.node_status import NodeStatus, read_all
from bouquet.contract.readiness import hangs, is_ready
from bouquet.contract.tls_files import CA
from bouquet.errors import FleetError
from bouquet.gpu import nvidia
from bouquet.gpu import plan as gpu
from bouquet.host import own_folder
from bouquet.host.fleet.base import LOG_TAIL_LINES, UNHEALTHY_HINT, Member, is_complete
from bouquet.host.fleet.supervisor import RELOAD, Child, read_plan, write_plan
from bouquet.host.packages.package_env import ensure_environment, environment_of, is_installed
from bouquet.host.packages.package_list import LIST, UNKNOWN, PackageList, list_digest
from bouquet.host.results_folder import COPY_HINT, incoming
from bouquet.oneshot.certificates import ensure
from bouquet.polling import poll_until
from bouquet.record.run_folder import LATEST
from bouquet.runtime.hub_cache import PARTS
from bouquet.settings import run_settings
from bouquet.settings.env import Directories
from bouquet.settings.executor_settings import VARIABLES
from bouquet.settings.host import PROJECT, HostSettings

SAMPLE = PROJECT / "data" / "cifar10-sample"
START_POLL_SECONDS = 0.1
STOP_POLL_SECONDS = 0.05
STOP_TIMEOUT = 15.0
"""Seconds between SIGTERM and SIGKILL for the supervisor, which itself gives its children 8 s."""


class ProcessFleet:
    """One SuperLink and N SuperNodes as processes of this machine."""

    def __init__(self, settings: HostSettings) -> None:
        self._settings = settings
        self._home = settings.home / "processes"
        self._lock = self._home / "supervisor.lock"
        self._plan = self._home / "plan.json"
        self._results = self._home / "results"
        self._size = self._home / "leases" / "size"
        self._python = sys.executable

    def uses_gpus(self) -> bool:
        """Whether the nodes compute on GPUs."""
        return bool(nvidia.shares(self._settings.gpus, self._settings.supernodes)[0])

    def python(self) -> str:
        """Return the version of this Python, which the processes run, too."""
        return platform.python_version()

    def packages(self) -> str | None:
        """Return the digest of the running fleet's package list, from the environment that its processes run in."""
        if self._supervisor() is None:
            return None
        python = Path(read_plan(self._plan)[0].command[0])
        try:
            return list_digest((python.parents[1] / LIST).read_bytes())
        except FileNotFoundError:  # a fleet that an earlier version started
            return UNKNOWN

    def tag(self) -> None:
        """Processes have no images."""

    def prepare(self, packages: PackageList) -> Iterator[str]:
        """Report what the nodes compute on, then find or create the Python environment of the list."""
        yield from gpu.summary(*nvidia.shares(self._settings.gpus, self._settings.supernodes))
        folder = environment_of(packages)
        if not is_installed(folder):
            yield f"packages: installing {len(packages.names)} into {folder}"
        self._python = str(ensure_environment(packages) / "bin" / "python")

    def up(self) -> None:
        """Start the fleet, resize it, or restart it if more than its size has changed; wait until all are healthy.

        Raises:
            FleetError: The fleet is not healthy in time.
            SettingError: BOUQUET_HOME/processes has files that are not Bouquet's, or cannot be written.
        """
        # Before anything is written or removed there.
        own_folder.claim(self._home, "BOUQUET_HOME", self._settings.home, earlier_marker=self._lock.name)
        children = self._children({} if self.uses_gpus() else {"GPUS": "none"})
        if not self._settings.insecure:
            # The plan and the environment hold no secrets: the processes read them from files of their owner's.
            ensure(replace(self._settings.certificates, directories=self._directories()))
        supervisor = self._supervisor()
        running = read_plan(self._plan) if supervisor else []
        write_size(self._size, self._settings.supernodes)
        if supervisor is not None and _differ_in_number(running, children):
            for child in children[len(running) :]:
                Path(child.environment["BOUQUET_RUN_DIR"]).mkdir(exist_ok=True)
            write_plan(self._plan, children)
            os.kill(supervisor, RELOAD)
        elif supervisor is None or running != children:
            self.down()
            self._start(children)
        deadline = time.monotonic() + self._settings.up_timeout
        if not self._settings.insecure:
            self._enrol(deadline)
        self._wait_until_healthy(deadline)

    def down(self, *, volumes: bool = False) -> None:
        """Stop the supervisor and with it every member; with `volumes`, remove their files too."""
        supervisor = self._supervisor()
        if supervisor is not None:
            os.kill(supervisor, signal.SIGTERM)
            while not poll_until(lambda: self._supervisor() != supervisor, STOP_TIMEOUT, STOP_POLL_SECONDS):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(supervisor, signal.SIGKILL)
        if volumes:
            own_folder.remove(self._home)

    def members(self) -> list[Member]:
        """Return the members of the running supervisor's plan, with the state that each run folder shows."""
        if self._supervisor() is None:
            return []
        return [
            Member(
                name=child.name,
                role=child.name.partition("-")[0],
                state=_state(Path(child.environment["BOUQUET_RUN_DIR"])),
                partition_id=int(child.environment["PARTITION_ID"]) if "PARTITION_ID" in child.environment else None,
                host=socket.gethostname(),
            )
            for child in read_plan(self._plan)
        ]

    def node_statuses(self) -> list[NodeStatus]:
        """Return the SuperNodes' status files."""
        return read_all(self._home / "leases" / "nodes")

    def memory(self) -> dict[str, int]:
        """Return the memory of each member's processes; n processes that share a page count an nth of it each."""
        run_folders = self._home / "run"
        used: dict[str, int] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # the process has just ended, or belongs to another user
                folder = Path(process.environ().get("BOUQUET_RUN_DIR", ""))
                if folder.parent == run_folders:
                    used[folder.name] = used.get(folder.name, 0) + process.memory_full_info().pss
        return used

    def logs(self, *, follow: bool) -> None:
        """Print the members' logs."""
        logs = sorted((self._home / "logs").glob("*.log"))
        if not logs:
            raise FleetError("the process fleet has no logs", "start it: make up")
        with contextlib.suppress(KeyboardInterrupt):
            subprocess.run(["tail", "-n", "100", *(["-F"] if follow else []), *map(str, logs)], check=False)

    def root_certificate(self) -> bytes | None:
        """Return the CA's certificate."""
        return None if self._settings.insecure else _read(self._directories().identities / CA)

    def collect_results(self, destination: Path, run_id: str | None = None) -> None:
        """Copy results to the user's folder; the fleet keeps them too.

        Raises:
            FleetError: `destination` cannot be written, or the disk is full.
        """
        found = [self._results / run_id] if run_id else sorted(self._results.glob("*"))
        newest = run_id or _newest(self._results)
        with incoming(destination) as staged:
            for folder in found:
                if folder.is_dir() and not folder.is_symlink():  # a run that was rejected has no results
                    _copy(folder, staged / folder.name, destination)
            if newest and (staged / newest).is_dir():
                (staged / LATEST).symlink_to(newest)

    def _directories(self) -> Directories:
        home = self._home
        return Directories(
            run=home / "run",
            state=home / "state",
            leases=home / "leases",
            authority=home / "authority",
            server=home / "server",
            identities=home / "identities",
        )

    def _children(self, supernode_environment: dict[str, str] | None = None) -> list[Child]:
        """Return the members, with additional variables in the SuperNodes' environment."""
        settings, directories = self._settings, self._directories()
        # Each environment is on top of the one that the fleet was started in.
        shared = {
            "PATH": os.pathsep.join([str(Path(self._python).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": str(PROJECT / "deploy"),
            "PYTHONUNBUFFERED": "1",
            "FLWR_HOME": str(self._home / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "BOUQUET_SIZE_FILE": str(self._size),
            "BOUQUET_STATE_DIR": str(directories.state),
            "BOUQUET_LEASE_DIR": str(directories.leases),
            "BOUQUET_SERVER_DIR": str(directories.server),
            "BOUQUET_IDENTITY_DIR": str(directories.identities),
            "INSECURE": str(int(settings.insecure)),
            "BOUQUET_CACHE_DIR": str(self._home / "cache"),
            "BOUQUET_CACHE_GIB": str(settings.partition_cache_gib),
            "BOUQUET_RESULTS_DIR": str(self._results),
            "BOUQUET_DATASET_FALLBACK": str(SAMPLE),
            # Inherited in any case: here, a change of one restarts the fleet.
            **{name: os.environ.get(name, "") for name in VARIABLES},
        }
        if settings.dataset:
            shared["BOUQUET_DATASET"] = str(settings.dataset)
        if settings.hub_token:
            shared["HF_TOKEN_PATH"] = str(settings.hub_token)
        if settings.hf_cache:  # without it, the processes use the user's own cache
            shared["BOUQUET_HF_CACHE"] = str(settings.hf_cache)
            cache = self._home / "cache" / "huggingface"
            shared |= {"HF_HOME": str(cache), **{f"HF_{part.upper()}_CACHE": str(cache / part) for part in PARTS}}
        local = settings.fleet_bind.startswith("127.")
        superlink = {
            "FLEET_ADDRESS": f"{'127.0.0.1' if local else '0.0.0.0'}:{settings.fleet_port}",  # noqa: S104
            "CONTROL_ADDRESS": f"127.0.0.1:{settings.control_port}",
            "RUNTIME_ADDRESS": "127.0.0.1:0",
            **{name: os.environ.get(name, "") for name in run_settings.VARIABLES},
            "CUDA_VISIBLE_DEVICES": "-1",  # only the nodes use the GPUs
        }
        children = [self._child("superlink", "bouquet.superlink", shared | superlink)]
        for partition_id in range(settings.supernodes):
            supernode = {
                "SUPERLINK": f"127.0.0.1:{settings.fleet_port}",
                "RUNTIME_ADDRESS": "127.0.0.1:0",
                "PARTITION_ID": str(partition_id),
                "NODE_CONFIG": os.environ.get("NODE_CONFIG", ""),
                "BOUQUET_NODE_CONFIG_FILE": str(settings.node_config.file or ""),
                "BOUQUET_NODE_CONFIG_DIGEST": settings.node_config.digest,  # a changed file restarts the fleet
            }
            environment = shared | supernode | (supernode_environment or {})
            children.append(self._child(f"supernode-{partition_id}", "bouquet.node", environment))
        return children

    def _child(self, name: str, module: str, environment: dict[str, str]) -> Child:
        return Child(
            name=name,
            command=[self._python, "-P", "-m", module],
            environment=environment | {"BOUQUET_RUN_DIR": str(self._home / "run" / name)},
            log=str(self._home / "logs" / f"{name}.log"),
        )

    def _start(self, children: list[Child]) -> None:
        write_plan(self._plan, children)
        for stale in ("run", "logs"):
            shutil.rmtree(self._home / stale, ignore_errors=True)
            (self._home / stale).mkdir()
        for child in children:
            Path(child.environment["BOUQUET_RUN_DIR"]).mkdir()
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with (self._home / "logs" / "supervisor.log").open("ab") as log:
                supervisor = subprocess.Popen(
                    [sys.executable, "-P", "-m", "bouquet.host.fleet.supervisor", str(self._plan)],
                    cwd=self._home,  # a folder without Python packages
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lock,),  # the supervisor holds the lock until it ends
                    start_new_session=True,
                )
            os.ftruncate(lock, 0)
            os.write(lock, str(supervisor.pid).encode())
        finally:
            os.close(lock)

    def _supervisor(self) -> int | None:
        """Return the pid of the running supervisor; None where none is running."""
        try:
            lock = os.open(self._lock, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.read(lock, 32))
        finally:
            os.close(lock)
        return None

    def _enrol(self, deadline: float) -> None:
        """Enrol the SuperNodes when the SuperLink is healthy, as the service `setup` does: they wait for their keys."""
        # Imported here: importing Flower is slow, and other commands do without it.
        from bouquet.flower.control_client import ControlClient  # noqa: PLC0415
        from bouquet.oneshot.enrol import enrol  # noqa: PLC0415

        if self._wait_for_superlink(deadline):
            with ControlClient(f"127.0.0.1:{self._settings.control_port}", self.root_certificate()) as api:
                enrol(api, self._directories().identities, range(self._settings.supernodes))

    def _wait_for_superlink(self, deadline: float) -> bool:
        """Return whether the SuperLink is healthy in time; False at once where the supervisor has ended."""

        def state() -> str:
            members = self.members()
            if any(member.role == "superlink" and member.healthy for member in members):
                return "healthy"
            return "" if members else "ended"

        return poll_until(state, deadline - time.monotonic(), START_POLL_SECONDS) == "healthy"

    def _wait_until_healthy(self, deadline: float) -> None:
        def state() -> str:
            members = self.members()
            if is_complete(members, self._settings.supernodes):
                return "healthy"
            return "" if members else "ended"

        if poll_until(state, deadline - time.monotonic(), START_POLL_SECONDS) != "healthy":
            missing = [member.name for member in self.members() if not member.healthy] or ["supervisor"]
            logs = "\n".join(self._tails(missing))
            self.down()
            raise FleetError(
                f"UP_TIMEOUT={self._settings.up_timeout}: not healthy in time: {', '.join(missing)}\n{logs}\n",
                UNHEALTHY_HINT,
            )

    def _tails(self, names: list[str]) -> Iterator[str]:
        for name in names:
            log = self._home / "logs" / f"{name}.log"
            if log.exists():
                yield f"--- {log}"
                yield from log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]


def _state(run_directory: Path) -> str:
    """Return the state of a process that runs."""
    return "healthy" if is_ready(run_directory) else "unhealthy" if hangs(run_directory) else "starting"


def _differ_in_number(running: list[Child], wanted: list[Child]) -> bool:
    """Whether two fleets differ only in the number of SuperNodes at the end of the list."""
    common = min(len(running), len(wanted))
    return len(running) != len(wanted) and running[:common] == wanted[:common]


def _newest(results: Path) -> str | None:
    """Return the run that the fleet's link `latest` names; None before the first run."""
    try:
        return str((results / LATEST).readlink())
    except OSError:
        return None


def _copy(folder: Path, staged: Path, destination: Path) -> None:
    try:
        shutil.copytree(folder, staged, ignore=shutil.ignore_patterns(".unfinished-*"))
    except (OSError, shutil.Error) as error:
        raise FleetError(f"RESULTS={destination}: the results could not be copied ({error})", COPY_HINT) from error


def _read(certificate: Path) -> bytes:
    try:
        return certificate.read_bytes()
    except FileNotFoundError:
        raise FleetError("the fleet has no certificates yet", "start it: make up") from None
