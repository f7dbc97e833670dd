"""Whether there is space on every disk that the fleet writes to."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bouquet.errors import HostError
from bouquet.host.docker_info import DockerInfo
from bouquet.probing import probe
from bouquet.settings.host import HostSettings

GIB = 1024**3
IMAGES_GIB = 5.0
"""Both images (1.9 GiB), the cache of their build (1.9 GiB), and a first run."""
VOLUMES_GIB = 1.0
"""What a run with CIFAR-10 adds: the data as downloaded and as decoded, the SuperLink's state."""
FILES_GIB = 0.1
"""Results and Flower's folder: megabytes."""


@dataclass(frozen=True)
class Use:
    """What the fleet writes to one folder.

    Attributes:
        name: The folder and its purpose.
        folder: The folder; it need not exist yet.
        needed_gib: GiB that must be free for it.
    """

    name: str
    folder: Path
    needed_gib: float


def user_uses(settings: HostSettings) -> list[Use]:
    """Return what the commands write for any fleet."""
    return [
        Use(f"results ({settings.results})", settings.results, FILES_GIB),
        Use(f"Flower's folder ({settings.flower_home})", settings.flower_home, FILES_GIB),
    ]


def process_uses(settings: HostSettings) -> list[Use]:
    """Return what a fleet of processes and its commands write."""
    hub = Path(os.environ.get("HF_HOME") or cache_home() / "huggingface").expanduser()
    return [
        *user_uses(settings),
        Use(f"state, logs and partitions ({settings.home})", settings.home, VOLUMES_GIB),
        Use(f"downloaded data ({hub})", hub, VOLUMES_GIB),
    ]


def container_uses(settings: HostSettings, docker: DockerInfo) -> list[Use]:
    """Return what a fleet of containers and its commands write, as far as its disk can be seen from here.

    Raises:
        HostError: Docker does not answer.
    """
    if unseen_disk(docker):
        return user_uses(settings)
    needed, what = (VOLUMES_GIB, "volumes") if images_exist(settings.tag) else (IMAGES_GIB, "images and volumes")
    return [*user_uses(settings), Use(f"Docker's {what} ({docker.root})", docker.root, needed)]


def cache_home() -> Path:
    """Return the user's folder for caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def images_exist(tag: str) -> bool:
    """Whether Docker has both images, so that a start builds at most a few layers."""
    images = [f"bouquet-superlink:{tag}", f"bouquet-supernode:{tag}"]
    return probe(["docker", "image", "inspect", *images], "restart Docker").returncode == 0


def by_disk(found: Sequence[Use]) -> list[list[Use]]:
    """Return the uses, grouped by the file system that they write to."""
    groups: dict[int, list[Use]] = {}
    for use in found:
        groups.setdefault(existing(use.folder).stat().st_dev, []).append(use)
    return list(groups.values())


def existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    # Unlike pathlib, os.path takes a folder that this user may not look at for a missing one.
    return next(each for each in (folder, *folder.parents) if os.path.exists(each))  # noqa: PTH110


def disk(group: Sequence[Use]) -> str:
    """Check that one file system has space for everything that the fleet writes to it.

    Raises:
        HostError: It has too little.
    """
    free = shutil.disk_usage(existing(group[0].folder)).free / GIB
    needed = sum(use.needed_gib for use in group)
    message = f"{_size(free)} free, {_size(needed)} needed for {', '.join(use.name for use in group)}"
    if free < needed:
        uses_docker = any(use.name.startswith("Docker's") for use in group)
        example = ", for example with: docker system prune" if uses_docker else ", or name a folder on another disk"
        raise HostError(f"disk: {message}", f"free some space{example}")
    return message


def _size(gib: float) -> str:
    return f"{gib:.1f} GiB" if gib >= 1 else f"{gib * 1024:.0f} MiB"


def unseen_disk(docker: DockerInfo) -> str:
    """Return one line if Docker's disk cannot be checked from here; empty if it can."""
    if docker.is_here:
        return ""
    return f"Docker's folder {docker.root} is not on this machine (Docker Desktop, DOCKER_HOST): its disk is unchecked"
