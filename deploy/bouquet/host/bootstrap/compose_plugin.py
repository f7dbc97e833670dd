"""Docker's Compose and buildx plugins: found on this host, or installed from Debian 13's packages.

Hosts with Debian's Docker or a bare Docker Engine often have neither plugin. Debian 13 packages both for every
architecture that it supports. A host with apt downloads them over apt's signed channel into the user's Docker folder.
That needs no root and leaves the system as it is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from bouquet.errors import HostError
from bouquet.files import write_atomically
from bouquet.host.bootstrap.run_command import run_command
from bouquet.probing import probe

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCE = f"deb [signed-by={KEYRING}] http://deb.debian.org/debian trixie main\n"
PACKAGES = ("docker-compose", "docker-buildx")
DOCKER_HINT = "install or restart Docker, or run the fleet as local processes: FLEET=processes make run"
INSTALL_HINT = "install Docker Compose v2 and buildx: https://docs.docker.com/compose/install/linux/"


def ensure() -> str:
    """Make `docker compose` and `docker buildx` work for this user.

    Returns:
        One line that says what was found, or what was installed, from where and to where.

    Raises:
        HostError: A plugin is missing and this host cannot download it.
    """
    missing = missing_plugins()
    if not missing:
        return f"Compose {_version('docker-compose')} found"
    check_installable(missing)
    folder = plugin_folder()
    with tempfile.TemporaryDirectory(prefix="bouquet-plugins-") as scratch:
        # apt downloads as its own user, who must be able to enter.
        Path(scratch).chmod(0o755)
        for binary in _unpack(_download(missing, Path(scratch)), Path(scratch)):
            _install(binary, folder)
    for package in missing:
        if not _works(package):
            raise HostError(f"{package} was installed into {folder}, but docker does not run it", INSTALL_HINT)
    return f"Compose {_version('docker-compose')}: {' and '.join(missing)} from Debian 13 installed into {folder}"


def missing_plugins() -> list[str]:
    """Return the names of the Debian packages whose plugins do not work on this host.

    Raises:
        HostError: There is no `docker` command, or it does not answer.
    """
    return [package for package in PACKAGES if not _works(package)]


def check_installable(missing: list[str]) -> None:
    """Check that this host can download the plugins from Debian.

    Raises:
        HostError: The host lacks apt-get, dpkg or Debian's archive key.
    """
    tools = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    if not tools and not KEYRING.exists():
        tools = [str(KEYRING)]
    if tools:
        problem = (
            f"{' and '.join(missing)} missing, and this host cannot download from Debian ({', '.join(tools)} missing)"
        )
        raise HostError(problem, INSTALL_HINT)


def plugin_folder() -> Path:
    """Return the folder where the `docker` command looks for this user's plugins."""
    config = os.environ.get("DOCKER_CONFIG")
    return (Path(config) if config else Path.home() / ".docker") / "cli-plugins"


def apt_options(root: Path) -> list[str]:
    """Return options that keep apt's sources, state and cache under `root`; proxy settings stay the host's."""
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
    write_atomically(folder / binary.name, binary.read_bytes(), 0o755)


def _run(command: list[str], cwd: Path) -> None:
    run_command(command, "the Compose plugin could not be downloaded from Debian 13", INSTALL_HINT, cwd=cwd)


def _version(package: str) -> str:
    command = ["docker", package.removeprefix("docker-"), "version", "--short"]
    return probe(command, DOCKER_HINT).stdout.strip()


def _works(package: str) -> bool:
    command = ["docker", package.removeprefix("docker-"), "version"]
    return probe(command, DOCKER_HINT).returncode == 0
