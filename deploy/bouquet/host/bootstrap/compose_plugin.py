"""Docker's Compose and buildx plugins: found, or taken from Debian 13's packages.

Hosts with Debian's or a bare Docker Engine often have neither. Debian 13 packages both for every architecture it
supports, so a host with apt fetches them over apt's own signed channel, into the user's Docker folder: nothing of
the system changes, and no root is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from bouquet.errors import HostError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCE = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian trixie main\n"
PACKAGES = ("docker-compose", "docker-buildx")
BY_HAND = "install Docker Compose v2 and buildx: https://docs.docker.com/compose/install/linux/"


def ensure() -> str:
    """Make `docker compose` and `docker buildx` work for this user.

    Returns:
        One line: what was found, or what was installed, from where and to where.

    Raises:
        HostError: the plugins are missing and this host cannot fetch them.
    """
    absent = missing()
    if not absent:
        return f"Compose {_version('docker-compose')} found"
    if lacks := lacking():
        raise HostError(f"{' and '.join(absent)} missing, and no Debian to take them from ({lacks} missing)", BY_HAND)
    folder = plugin_folder()
    with tempfile.TemporaryDirectory(prefix="bouquet-plugins-") as scratch:
        # apt fetches as its own user, who must be able to enter.
        Path(scratch).chmod(0o755)
        for binary in _unpack(_download(absent, Path(scratch)), Path(scratch)):
            _install(binary, folder)
    for package in absent:
        if not _works(package):
            raise HostError(f"{package} was installed into {folder} but docker does not run it", BY_HAND)
    return f"Compose {_version('docker-compose')}: {' and '.join(absent)} from Debian 13 put into {folder}"


def missing() -> list[str]:
    """Return the Debian packages of the plugins that this host lacks."""
    return [package for package in PACKAGES if not _works(package)]


def lacking() -> str:
    """Return what this host lacks to fetch them; empty where it lacks nothing."""
    tools = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    return ", ".join(tools) or ("" if KEYRING.exists() else str(KEYRING))


def plugin_folder() -> Path:
    """Where Docker's command looks for this user's plugins."""
    config = os.environ.get("DOCKER_CONFIG")
    return (Path(config) if config else Path.home() / ".docker") / "cli-plugins"


def apt_options(root: Path) -> list[str]:
    """Options that keep apt's sources, state and cache under `root`; proxies and the like stay the host's."""
    settings = {
        "Dir::Etc::SourceList": root / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State": root / "state",
        "Dir::State::status": root / "status",
        "Dir::Cache": root / "cache",
        "APT::Get::AllowUnauthenticated": "false",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    return [option for key, value in settings.items() for option in ("-o", f"{key}={value}")]


def _download(packages: list[str], scratch: Path) -> list[Path]:
    apt = scratch / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "sources.list").write_text(SOURCE)
    (apt / "status").touch()
    debs = scratch / "debs"
    debs.mkdir()
    debs.chmod(0o777)
    _run(["apt-get", *apt_options(apt), "--quiet=2", "update"], scratch)
    _run(["apt-get", *apt_options(apt), "--quiet=2", "download", *packages], debs)
    return sorted(debs.glob("*.deb"))


def _unpack(debs: list[Path], scratch: Path) -> list[Path]:
    tree = scratch / "tree"
    for deb in debs:
        _run(["dpkg", "-x", str(deb), str(tree)], scratch)
    return sorted(path for path in tree.glob("usr/lib*/docker/cli-plugins/*") if path.is_file())


def _install(binary: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / binary.name
    # A rename is atomic: a docker command running meanwhile never sees half a file.
    part = folder / f".{binary.name}.{os.getpid()}"
    shutil.copyfile(binary, part)
    part.chmod(0o755)
    part.replace(target)


def _run(command: list[str], cwd: Path) -> None:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        raise HostError(f"the Compose plugin could not be fetched from Debian 13: {reason}", BY_HAND)


def _version(package: str) -> str:
    command = ["docker", package.removeprefix("docker-"), "version", "--short"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _works(package: str) -> bool:
    command = ["docker", package.removeprefix("docker-"), "version"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError as error:
        raise HostError("docker is not on PATH", "install Docker, or run without it: make run does") from error
