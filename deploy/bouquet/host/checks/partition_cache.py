"""The cache of decoded partitions: its size, and how to empty it."""

import os
import re
from pathlib import Path

from bouquet.host.fleet.choose import HUNG_HINT
from bouquet.probing import probe
from bouquet.settings.host import HostSettings

CACHE_IN_CONTAINER = "/var/lib/bouquet/cache"
MIB = 1024**2
_ENTRY = re.compile(r"[0-9a-f]{32}(\.npz)?|\.making-.*|\.removing-.*")
"""The names that `app.array_cache` uses."""


def cache_of_processes(settings: HostSettings) -> str:
    """Return the size of the cache of a fleet of processes, and how to empty it."""
    folder = settings.home / "processes" / "cache"
    return f"{_of_limit(folder_mib(folder), settings)} in {folder}; to empty it: rm -r '{folder}'"


def cache_of_containers(settings: HostSettings) -> str:
    """Return the size of the cache in the containers' volume, and how to empty it.

    Raises:
        HostError: Docker does not answer.
    """
    project = settings.compose_project
    labels = [f"--filter=label=com.docker.compose.{key}" for key in (f"project={project}", "volume=cache")]
    volume = _docker("volume", "ls", "--quiet", *labels)
    if not volume:
        return f"empty: the volume cache of {project} does not exist yet"
    size = _of_limit(_volume_mib(project, volume), settings)
    return f"{size} in the volume {volume}; to empty it: make down; docker volume rm {volume}"


def folder_mib(folder: Path) -> int:
    """Return the MiB of the cache's entries in a folder; 0 where there is no such folder."""
    entries = [entry for entry in folder.glob("*") if _ENTRY.fullmatch(entry.name)]
    files = [file for entry in entries for file in (entry, *entry.rglob("*"))]
    total = 0
    for file in files:
        try:
            total += file.lstat().st_size
        except FileNotFoundError:  # removed meanwhile
            continue
    return total // MIB


def _volume_mib(project: str, volume: str) -> int | None:
    """Return the size as the SuperLink's container sees it, or as this user does; None where neither can look."""
    superlink = _docker(
        *("ps", "--quiet", f"--filter=label=com.docker.compose.project={project}"),
        "--filter=label=com.docker.compose.service=superlink",
    )
    if superlink:
        excluded = "--exclude=huggingface"  # the hub's own cache
        measured = _docker("exec", superlink, "du", "-s", "--block-size=1M", excluded, CACHE_IN_CONTAINER)
        return int(measured.split()[0]) if measured else None
    folder = Path(_docker("volume", "inspect", "--format", "{{.Mountpoint}}", volume))
    return folder_mib(folder) if os.access(folder, os.R_OK | os.X_OK) else None


def _of_limit(mib: int | None, settings: HostSettings) -> str:
    size = "size known only while the fleet is up" if mib is None else f"{mib / 1024:.2f} GiB"
    if not settings.partition_cache_gib:
        return f"{size}, no limit (PARTITION_CACHE_GIB=0)"
    return f"{size}, at most {settings.partition_cache_gib} GiB (PARTITION_CACHE_GIB)"


def _docker(*arguments: str) -> str:
    answer = probe(["docker", *arguments], HUNG_HINT)
    return answer.stdout.strip() if answer.returncode == 0 else ""
