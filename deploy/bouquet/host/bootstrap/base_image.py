"""The image to build from: python:3.11-slim-bookworm, or its like made from Debian's packages.

Where no image registry answers, Debian's archive often does: mmdebstrap makes a root file system of Debian 12
with its Python 3.11, verified by Debian's archive key, and Docker imports it. The host's CA bundle goes in,
because a network that keeps registries out tends to have a CA of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from bouquet.errors import HostError

DEFAULT = "python:3.11-slim-bookworm"
MADE = "bouquet-base:bookworm"
REGISTRY_SECONDS = 15.0

CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCES = "".join(
    f"deb [signed-by={KEYRING}] http://deb.debian.org/{archive} {suite} main\n"
    for archive, suite in (
        ("debian", "bookworm"),
        ("debian", "bookworm-updates"),
        ("debian-security", "bookworm-security"),
    )
)
# pip only fetches uv in the build; the rest of what python:3.11-slim has and Bouquet uses is in minbase.
PACKAGES = ("ca-certificates", "python3", "python3-pip")
# Nobody reads these in a container: about a third of the size.
UNREAD = (
    "doc",
    "man",
    "info",
    "locale",
    "lintian",
    "common-licenses",
    "bash-completion",
    "pixmaps",
    "zoneinfo",
)
# The licences of what the image holds stay in it.
KEPT = ("doc/*/copyright", "common-licenses/*")


def ensure(default: str = DEFAULT, registry_seconds: float = REGISTRY_SECONDS) -> str:
    """Make sure that there is an image to build from.

    Args:
        default: taken if Docker has it, or if a registry answers within `registry_seconds`.
        registry_seconds: how long a registry may take to begin to answer; the download itself has no limit.

    Returns:
        `default`, or the name of an image made from Debian's packages.

    Raises:
        HostError: neither can be had; says what is missing.
    """
    if _present(default) or _pull(default, registry_seconds):
        return default
    if not _present(MADE):
        _require_mmdebstrap(default)
        _make()
    return MADE


def mmdebstrap_command(tar: Path) -> list[str]:
    """The command that writes the root file system to `tar`."""
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in UNREAD]
    included = [f"--dpkgopt=path-include=/usr/share/{pattern}" for pattern in KEPT]
    # After the packages are set up, so that no trigger writes Debian's own bundle over it.
    bundle = [f"--customize-hook=upload {CA_BUNDLE} {CA_BUNDLE}"] if CA_BUNDLE.exists() else []
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        '--aptopt=Acquire::Retries "3"',
        *excluded,
        *included,
        *bundle,
        "bookworm",
        str(tar),
        "-",  # the sources come by standard input
    ]


def _make() -> None:
    with tempfile.TemporaryDirectory(prefix="bouquet-base-") as scratch:
        tar = Path(scratch) / "root.tar"
        _run(mmdebstrap_command(tar), SOURCES)
        changes = (
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "ENV LANG=C.UTF-8",
            'CMD ["python3"]',
        )
        _run(["docker", "import", *(f"--change={change}" for change in changes), str(tar), MADE])


def _require_mmdebstrap(default: str) -> None:
    if shutil.which("mmdebstrap") is None and shutil.which("apt-get") is not None and os.geteuid() == 0:
        _run(["apt-get", "--quiet=2", "update"])
        _run(["apt-get", "--quiet=2", "install", "--yes", "--no-install-recommends", "mmdebstrap"])
    for needed, there in (("mmdebstrap", shutil.which("mmdebstrap")), (str(KEYRING), KEYRING.exists())):
        if not there:
            raise HostError(
                f"no image registry answers for {default}, and {needed} is missing to make it from Debian's packages",
                "as root: apt-get install mmdebstrap debian-archive-keyring; or name another by BASE_IMAGE",
            )


def _present(image: str) -> bool:
    command = ["docker", "image", "inspect", image]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _pull(image: str, registry_seconds: float) -> bool:
    """Pull `image`; give up if the registry has not begun to answer in time."""
    command = ["docker", "pull", image]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as pull:
        assert pull.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        # Docker prints its first line once the registry has sent the manifest.
        too_late = threading.Timer(registry_seconds, pull.kill)
        too_late.start()
        try:
            pull.stdout.readline()
        finally:
            too_late.cancel()
        pull.stdout.read()
    return pull.returncode == 0


def _run(command: list[str], given: str | None = None) -> None:
    result = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        raise HostError(
            f"the base image could not be made: {command[0]}: {reason}",
            "set BASE_IMAGE to an image that you have, with Python 3.11 to 3.13 and pip",
        )
