"""Brings the fleet's images to the hosts of a Swarm: through a registry, or from this Docker straight to theirs."""

import subprocess
from collections.abc import Iterator, Sequence

from bouquet.errors import HostError
from bouquet.host.bundle.image_archive import names
from bouquet.probing import docker_reason, probe

HOST_HINT = "check that this works: docker -H {host} version"
HOST_TIMEOUT = 30.0
"""Seconds that a host may take to answer; `ssh` may have to connect first."""


def load_into(hosts: Sequence[str], tag: str) -> Iterator[str]:
    """Load both images into the Docker of each host that lacks them; yield one line for each host.

    Args:
        hosts: Docker endpoints, such as `ssh://user@host`.
        tag: The images' tag, which names their content.

    Raises:
        HostError: A host does not answer, or has no space.
    """
    for host in hosts:
        hint = HOST_HINT.format(host=host)
        answer = probe(["docker", "-H", host, "image", "inspect", *names(tag)], hint, HOST_TIMEOUT)
        if answer.returncode == 0:
            yield f"images: {host} has them"
            continue
        if "o such image" not in answer.stderr:
            raise HostError(f"{host}: {docker_reason(answer.stderr)}", hint)
        _load(host, tag, hint)
        yield f"images: loaded into {host}"


def push(registry: str, tag: str) -> Iterator[str]:
    """Push both images to a registry; yield one line for each.

    Raises:
        HostError: The registry refuses them.
    """
    for name in names(tag):
        _run("tag", name, f"{registry}/{name}")
        _run("push", "--quiet", f"{registry}/{name}")
        yield f"images: pushed {registry}/{name}"


def _load(host: str, tag: str, hint: str) -> None:
    with subprocess.Popen(["docker", "save", *names(tag)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as save:
        load = subprocess.run(
            ["docker", "-H", host, "load", "--quiet"], check=False, stdin=save.stdout, capture_output=True
        )
        assert save.stdout is not None  # noqa: S101  for mypy
        assert save.stderr is not None  # noqa: S101  for mypy
        save.stdout.close()
        errors = save.stderr.read()
    if load.returncode:
        raise HostError(f"{host}: the images were not loaded: {docker_reason(load.stderr)}", hint)
    if save.returncode:
        raise HostError(f"docker save failed: {docker_reason(errors)}", "build the images: bouquet swarm images")


def _run(*arguments: str) -> None:
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise HostError(
            f"docker {arguments[0]} {arguments[-1]}: {docker_reason(done.stderr)}",
            "log in to the registry: docker login",
        )
