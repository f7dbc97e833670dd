"""The image to build on: python:3.11-slim-bookworm, or an equivalent built from Debian's packages.

Where no image registry answers, Debian's archive often does. mmdebstrap builds a root file system of Debian 12 with
its Python 3.11 and verifies it with Debian's archive key; Docker imports it. The host's CA bundle is copied in,
because a network that blocks registries usually has its own CA.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from bouquet.errors import HostError
from bouquet.host.bootstrap.run_command import run_command
from bouquet.probing import probe

PYTHON = "3.11"
"""The version of Python in both images."""
DEFAULT = f"python:{PYTHON}-slim-bookworm"
DEBIAN_IMAGE = "bouquet-base:bookworm"
"""The name of the image that is built from Debian's packages."""
REGISTRY_TIMEOUT = 15.0
"""Seconds that a registry may take to begin to answer."""

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
# pip is for the build, which installs uv with it. Everything else that Bouquet uses of python:3.11-slim is in minbase.
PACKAGES = ("ca-certificates", "python3", "python3-pip")
EXCLUDED = (
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
"""Folders of /usr/share that no container reads: about a third of the size."""
INCLUDED = ("doc/*/copyright", "common-licenses/*")
"""The licences of the packages in the image stay in it."""


def ensure(default: str = DEFAULT, registry_timeout: float = REGISTRY_TIMEOUT) -> str:
    """Return the name of an image to build on, which Docker has afterwards.

    Args:
        default: The image to use if Docker has it, or if a registry begins to answer in time.
        registry_timeout: Seconds that a registry may take to begin to answer; the download itself has no limit.

    Returns:
        `default`, or the name of an image built from Debian's packages.

    Raises:
        HostError: Neither image is available; the error names what is missing.
    """
    if _is_present(default) or _pull(default, registry_timeout):
        return default
    if not _is_present(DEBIAN_IMAGE):
        _require_mmdebstrap(default)
        _build_debian_image()
    return DEBIAN_IMAGE


def mmdebstrap_command(tar: Path) -> list[str]:
    """Return the command that writes the root file system to `tar`."""
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in EXCLUDED]
    included = [f"--dpkgopt=path-include=/usr/share/{pattern}" for pattern in INCLUDED]
    # A customize hook runs after the packages' triggers, which would overwrite the bundle with Debian's. The host's may
    # be readable for root only; the containers' user reads its copy.
    hooks = (f"upload {CA_BUNDLE} {CA_BUNDLE}", f'chmod 0644 "$1{CA_BUNDLE}"')
    bundle = [f"--customize-hook={hook}" for hook in hooks] if CA_BUNDLE.exists() else []
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
        "-",  # it reads the sources from stdin
    ]


def _build_debian_image() -> None:
    with tempfile.TemporaryDirectory(prefix="bouquet-base-") as scratch:
        tar = Path(scratch) / "root.tar"
        _run(mmdebstrap_command(tar), stdin=SOURCES)
        changes = (
            "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "ENV LANG=C.UTF-8",
            'CMD ["python3"]',
        )
        _run(["docker", "import", *(f"--change={change}" for change in changes), str(tar), DEBIAN_IMAGE])


def _require_mmdebstrap(default: str) -> None:
    if shutil.which("mmdebstrap") is None and shutil.which("apt-get") is not None and os.geteuid() == 0:
        _run(["apt-get", "--quiet=2", "update"])
        _run(["apt-get", "--quiet=2", "install", "--yes", "--no-install-recommends", "mmdebstrap"])
    for needed, found in (("mmdebstrap", shutil.which("mmdebstrap")), (str(KEYRING), KEYRING.exists())):
        if not found:
            raise HostError(
                f"no image registry answers for {default}, and {needed}, needed to build it from Debian, is missing",
                "run as root: apt-get install mmdebstrap debian-archive-keyring; or set BASE_IMAGE to another image",
            )


def _is_present(image: str) -> bool:
    command = ["docker", "image", "inspect", image]
    return probe(command, "restart Docker").returncode == 0


def _pull(image: str, registry_timeout: float) -> bool:
    """Pull an image; return False where the registry does not begin to answer in time or refuses."""
    command = ["docker", "pull", image]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as pull:
        assert pull.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        timeout = threading.Timer(registry_timeout, pull.kill)
        timeout.start()
        try:
            pull.stdout.readline()  # Docker prints its first line after the registry has sent the manifest
        finally:
            timeout.cancel()
        pull.stdout.read()
    return pull.returncode == 0


def _run(command: list[str], stdin: str | None = None) -> None:
    problem = f"the base image could not be built: {command[0]}"
    hint = "set BASE_IMAGE to an image that you have, with Python 3.11 to 3.13 and pip"
    run_command(command, problem, hint, stdin=stdin)
