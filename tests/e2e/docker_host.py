"""A machine with Docker for a test: a Docker daemon of the test's own, in a network namespace without a route."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.conftest import COMMAND_SECONDS, docker_answers, wait_until

DAEMON_SECONDS = 60
STORAGE_DRIVERS = ("overlay2", "fuse-overlayfs", "vfs")
"""The fastest that works here is used."""


def run(*command: str | Path, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


def can_have_hosts(*more_tools: str) -> bool:
    """Whether this machine lets the test have daemons of its own."""
    tools = ("dockerd", "ip", "nsenter", *more_tools)
    return os.geteuid() == 0 and all(map(shutil.which, tools)) and docker_answers()


class DockerHost:
    """A network namespace with a Docker daemon.

    Args:
        namespace: Its name.
        folder: For everything of the daemon.
        configuration: What is in its daemon.json, besides the storage driver.
    """

    def __init__(self, namespace: str, folder: Path, configuration: Mapping[str, Any] | None = None) -> None:
        self.namespace = namespace
        self.folder = folder
        self.endpoint = f"unix://{folder}/docker.sock"
        self._configuration = configuration or {}
        self._driver = STORAGE_DRIVERS[0]
        self._daemon: subprocess.Popen[bytes] | None = None

    def inside(self, *command: str | Path) -> list[str | Path]:
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *command]

    def __call__(
        self, *command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] = os.environ
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on this host, with its Docker."""
        return subprocess.run(
            self.inside(*command),
            cwd=cwd,
            env={**environment, "DOCKER_HOST": self.endpoint},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )

    def docker(self, *arguments: str, check: bool = True) -> str:
        return run("docker", "-H", self.endpoint, *arguments, check=check)

    def isolate(self) -> None:
        """Create the namespace, which reaches only itself."""
        self.folder.mkdir(exist_ok=True)
        run("ip", "netns", "add", self.namespace)
        run(*self.inside("ip", "link", "set", "lo", "up"))

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        for driver in STORAGE_DRIVERS[STORAGE_DRIVERS.index(self._driver) :]:
            self._driver = driver
            if self._start():
                return
        raise AssertionError((self.folder / "log").read_text())

    def _start(self) -> bool:
        (self.folder / "daemon.json").write_text(json.dumps({"storage-driver": self._driver, **self._configuration}))
        options = {"config-file": "daemon.json", "data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        command = [f"--{option}={self.folder / value}" for option, value in options.items()]
        with (self.folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                self.inside("dockerd", *command, "-H", self.endpoint), stdout=log, stderr=log
            )
        daemon = self._daemon

        def answers() -> str:
            if daemon.poll() is not None:
                return "ended"
            version = ["docker", "-H", self.endpoint, "version"]
            return "" if subprocess.run(version, capture_output=True).returncode else "answers"

        what = f"the daemon in {self.namespace} answers"
        return wait_until(answers, what, DAEMON_SECONDS, (self.folder / "log").read_text) == "answers"

    def processes(self) -> list[psutil.Process]:
        """The daemon, its containerd, and everything in its containers."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(str(self.folder) in word for word in process.cmdline()):
                    found |= {each.pid: each for each in [process, *process.children(recursive=True)]}
        return list(found.values())

    def kill(self) -> None:
        """End everything that runs here at once."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        assert self._daemon is not None
        self._daemon.wait(DAEMON_SECONDS)

    def remove(self) -> None:
        """Remove the host and everything on it."""
        if self._daemon is not None and self._daemon.poll() is None:
            containers = self.docker("ps", "--all", "--quiet", check=False).split()
            if containers:
                self.docker("rm", "--force", "--volumes", *containers, check=False)
            self._daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._daemon.wait(DAEMON_SECONDS)
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((each for each in mounts if each.startswith(f"{self.folder}/")), reverse=True):
            run("umount", "--lazy", mount, check=False)
        run("ip", "netns", "delete", self.namespace, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
