"""A fleet that the Helm chart installed in Kubernetes, through `kubectl`: its CA, its Control API, its results.

Nothing else of the cluster is touched. What else a user wants of it, such as logs and states, `kubectl` shows.
"""

import json
import math
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bouquet.errors import FleetError, HostError, SettingError
from bouquet.host.results_folder import incoming
from bouquet.polling import poll_until
from bouquet.probing import last_line, probe

OPTION = "--kubernetes"
CONTROL_PORT_IN_POD = 9093
CERTIFICATE_IN_POD = "/var/lib/bouquet/server/ca.crt"
RESULTS_IN_POD = "/var/lib/bouquet/results"
CONTAINER = "superlink"
KUBECTL_SECONDS = 60.0
READY_TIMEOUT_SECONDS = 600.0
READY_POLL_SECONDS = 2.0
"""Interval at which a SuperLink's pod that is not ready is looked at."""
FORWARD_POLL_SECONDS = 0.5
"""Interval at which the programs that forward and that watch the pod are looked at."""
WATCH_SECONDS = 365 * 86400
KUBECTL_HINT = "install kubectl, and check that it reaches the cluster: kubectl get pods"


class KubernetesRelease:
    """One release of the chart.

    Args:
        name: `RELEASE` or `NAMESPACE/RELEASE`; empty for the only one in kubectl's namespace.

    Raises:
        SettingError: The name is malformed.
    """

    def __init__(self, name: str) -> None:
        namespace, _, release = name.rpartition("/")
        if "/" in namespace or (not release and name) or name.startswith("/"):
            raise SettingError(OPTION, name, "not the name of a release", "give RELEASE or NAMESPACE/RELEASE")
        self._kubectl = ["kubectl", *(["--namespace", namespace] if namespace else [])]
        which = f"app.kubernetes.io/instance={release}" if release else "app.kubernetes.io/name=bouquet"
        self._selector = f"{which},app.kubernetes.io/component=superlink"
        self.name = name

    def root_certificate(self) -> bytes:
        """Return the CA's certificate that the SuperLink itself uses, for every source of its certificate.

        Raises:
            FleetError: There is no SuperLink that is ready, or kubectl may not read it.
            HostError: There is no kubectl, or it does not answer.
        """
        return self._run("exec", self._ready_pod(), "--container", CONTAINER, "--", "cat", CERTIFICATE_IN_POD).encode()

    def forward(self, port: int, on_forwarding: Callable[[str], None], on_lost: Callable[[str], None]) -> None:
        """Forward a port of 127.0.0.1 to the Control API, until this process is interrupted.

        A SuperLink's pod that is deleted and replaced is followed.

        Args:
            port: The port on this machine.
            on_forwarding: Called with the pod's name whenever the port is forwarded.
            on_lost: Called with the pod's name whenever it no longer is.

        Raises:
            FleetError: The port cannot be forwarded, or there is no SuperLink.
            HostError: There is no kubectl.
        """
        first = True
        while True:
            pod = self._ready_pod() if first else self._await_ready_pod()
            with tempfile.TemporaryFile("w+") as output:
                ports = f"{port}:{CONTROL_PORT_IN_POD}"
                with self._started("port-forward", "--address", "127.0.0.1", pod, ports, output=output) as forward:
                    poll_until(lambda: _tail(output) or _ended(forward), KUBECTL_SECONDS, FORWARD_POLL_SECONDS)
                    if not _ended(forward):
                        first = False
                        on_forwarding(pod.removeprefix("pod/"))
                        self._wait_for_end(forward, pod)
                reason = _tail(output)
            if first:
                hint = f"take another port: CONTROL_PORT={port + 1}" if "listen" in reason else KUBECTL_HINT
                raise FleetError(f"CONTROL_PORT={port}: it cannot be forwarded ({reason})", hint)
            on_lost(pod.removeprefix("pod/"))

    def collect_results(self, destination: Path) -> None:
        """Copy the results of all runs to a folder; files of the user's own in it stay.

        Raises:
            FleetError: There is no SuperLink that is ready, or the copy is not complete.
        """
        # tar exits with 1 if a run has written meanwhile.
        script = f"tar -C {RESULTS_IN_POD} -cf - . || test $? -eq 1"
        command = ("exec", self._ready_pod(), "--container", CONTAINER, "--", "sh", "-c", script)
        with incoming(destination) as staged, tempfile.TemporaryFile("w+") as errors:
            with self._started(*command, output=subprocess.PIPE, errors=errors) as copy:
                problem = ""
                try:
                    with tarfile.open(fileobj=copy.stdout, mode="r|") as archive:
                        archive.extractall(staged, filter="data")
                except tarfile.TarError as error:
                    problem = str(error)
                code = copy.wait()
            if code or problem:
                raise FleetError(f"the results could not be copied ({_tail(errors) or problem})", "repeat it")

    def _ready_pod(self) -> str:
        """Return the SuperLink's pod, as `pod/NAME`; raise `FleetError` if none is ready."""
        pod, state = self._look()
        if pod is None:
            raise FleetError(f"no SuperLink is ready in Kubernetes ({state})", "see why: kubectl get pods,events")
        return pod

    def _await_ready_pod(self) -> str:
        pod = poll_until(lambda: self._look()[0], READY_TIMEOUT_SECONDS, READY_POLL_SECONDS)
        return pod or self._ready_pod()

    def _look(self) -> tuple[str | None, str]:
        """Return the pod that is ready, and otherwise what there is."""
        items = json.loads(self._run("get", "pods", "--selector", self._selector, "--output", "json"))["items"]
        ready = []
        for pod in items:
            conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
            if conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
                ready.append(str(pod["metadata"]["name"]))
        if len(ready) > 1:
            releases = sorted({pod["metadata"]["labels"]["app.kubernetes.io/instance"] for pod in items})
            hint = f"name one: {OPTION} {releases[0]}"
            raise SettingError(OPTION, self.name, f"there are several releases: {', '.join(releases)}", hint)
        if ready:
            return f"pod/{ready[0]}", ""
        states = [f"{pod['metadata']['name']} is {pod['status'].get('phase', 'unknown')}" for pod in items]
        return None, ", ".join(states) or f"no pod has the labels {self._selector}"

    def _wait_for_end(self, forward: "subprocess.Popen[bytes]", pod: str) -> None:
        """Wait until the forward ends, or its pod is deleted.

        A forward may outlive its pod, and a pod of a StatefulSet is replaced by one of the same name. `wait` tells them
        apart. It fails where a user may not watch pods; then the end of the forward must do.
        """
        with self._started("wait", "--for=delete", pod, f"--timeout={WATCH_SECONDS}s") as wait:
            poll_until(lambda: _ended(forward) or wait.poll() == 0, math.inf, FORWARD_POLL_SECONDS)

    def _run(self, *arguments: str) -> str:
        done = probe([*self._kubectl, *arguments], KUBECTL_HINT, KUBECTL_SECONDS)
        if done.returncode:
            reason = last_line(done.stderr, f"kubectl exited with code {done.returncode}")
            raise FleetError(f"kubectl {arguments[0]}: {reason}", KUBECTL_HINT)
        return done.stdout

    @contextmanager
    def _started(
        self, *arguments: str, output: IO[str] | int = subprocess.DEVNULL, errors: IO[str] | int = subprocess.STDOUT
    ) -> "Iterator[subprocess.Popen[bytes]]":
        """Start kubectl; end it with the block."""
        try:
            process = subprocess.Popen(
                [*self._kubectl, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=errors
            )
        except OSError as error:
            raise HostError(f"kubectl cannot be started ({error.strerror})", KUBECTL_HINT) from error
        with process:
            try:
                yield process
            finally:
                process.terminate()


def _ended(process: "subprocess.Popen[bytes]") -> bool:
    return process.poll() is not None


def _tail(output: IO[str]) -> str:
    """Return the last line that a program has written into a file."""
    output.seek(0)
    return last_line(output.read(), "").removeprefix("error: ")
