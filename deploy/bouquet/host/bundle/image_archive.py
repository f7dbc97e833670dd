"""The images of a bundle: out of Docker as one compressed archive, and into it."""

import hashlib
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

from bouquet.errors import HostError
from bouquet.probing import docker_reason, probe

ROLES = ("superlink", "supernode")
CHUNK = 1 << 20
GZIP = 31
"""zlib's number for the format of gzip files."""
LEVEL = 1
"""The fastest: a slower one saves a tenth of the size and takes three times as long."""
DOCKER_HINT = "check Docker: make doctor"


def names(tag: str) -> list[str]:
    """Return the names of both images."""
    return [f"bouquet-{role}:{tag}" for role in ROLES]


def exist(tag: str) -> bool:
    """Whether Docker has both images."""
    return probe(["docker", "image", "inspect", *names(tag)], DOCKER_HINT).returncode == 0


def docker_platform() -> str:
    """Return the platform of Docker's machine, such as `linux/amd64`.

    Raises:
        HostError: Docker does not answer.
    """
    answer = probe(["docker", "version", "--format", "{{.Server.Os}}/{{.Server.Arch}}"], DOCKER_HINT)
    if answer.returncode:
        raise HostError("Docker does not answer, and a bundle has images", "start Docker, then retry")
    return answer.stdout.strip()


def content_tag(tag: str, prefix: str = "bundle") -> str:
    """Return a tag that is unique to the content of two images.

    Args:
        tag: The tag that they have.
        prefix: What the new tag begins with.

    Raises:
        HostError: Docker does not have them.
    """
    answer = probe(["docker", "image", "inspect", "--format", "{{.Id}}", *names(tag)], DOCKER_HINT)
    if answer.returncode:
        raise HostError(f"TAG={tag}: Docker does not have the images", "build them: make up")
    return f"{prefix}-{hashlib.sha256(answer.stdout.encode()).hexdigest()[:12]}"


def save(tag: str, as_tag: str) -> Iterator[bytes]:
    """Yield a compressed archive of both images; layers that they share are in it once.

    Args:
        tag: The tag that they have.
        as_tag: The tag that they have in the archive.

    Raises:
        HostError: Docker does not have them, or fails.
    """
    has_tag = exist(as_tag)  # this Docker has run such a bundle
    for source, target in zip(names(tag), names(as_tag), strict=True):
        _run("tag", source, target)
    try:
        yield from _compressed(["docker", "save", *names(as_tag)])
    finally:
        with suppress(HostError):
            if not has_tag:
                _run("image", "rm", *names(as_tag))


def load(archive: IO[bytes]) -> None:
    """Load the images of an archive into Docker, with their tags.

    Args:
        archive: What `save` yielded.

    Raises:
        HostError: Docker fails, for example for want of space.
    """
    docker = subprocess.Popen(
        ["docker", "load", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert docker.stdin is not None  # noqa: S101  for mypy
    with suppress(BrokenPipeError):  # Docker has failed, and says why
        shutil.copyfileobj(archive, docker.stdin, CHUNK)
    _, errors = docker.communicate()
    if docker.returncode:
        raise HostError(
            f"the images were not loaded: {docker_reason(errors)}", "free some disk space, or restart Docker"
        )


def _compressed(command: list[str]) -> Iterator[bytes]:
    compressor = zlib.compressobj(LEVEL, wbits=GZIP)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None  # noqa: S101  for mypy
        assert program.stderr is not None  # noqa: S101  for mypy
        try:
            while part := program.stdout.read(CHUNK):
                yield compressor.compress(part)
            errors = program.stderr.read()
        except BaseException:
            program.kill()
            raise
    if program.returncode:
        raise HostError(f"docker save failed: {docker_reason(errors)}", DOCKER_HINT)
    yield compressor.flush()


def _run(*arguments: str) -> None:
    answer = probe(["docker", *arguments], DOCKER_HINT)
    if answer.returncode:
        raise HostError(f"docker {arguments[0]} failed: {docker_reason(answer.stderr)}", DOCKER_HINT)
