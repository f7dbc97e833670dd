"""The size of a fleet on one machine: one number in a file that all its SuperNodes share.

The size is not in the environment of a long-running container, because Compose recreates a container whose
environment has changed: `SUPERNODES=20 docker compose up -d` must leave the ten running SuperNodes alone. The one-shot
service `setup` writes the file; the SuperNodes and the SuperLink read it. See
docs/decisions/0012-scale-by-one-number.md.

SuperNodes on other machines may have joined the fleet. The SuperLink writes their number next to the size, so that all
nodes know how many partitions there are.
"""

from pathlib import Path

from bouquet.files import write_atomically

SIZE, JOINED = "size", "joined"


def write_size(file: Path, supernodes: int) -> None:
    """Write the size; a concurrent reader sees the old number or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, f"{supernodes}\n".encode("ascii"))


def write_joined(file: Path, joined: int) -> None:
    """Write how many SuperNodes on other machines belong to the fleet, next to the file with its size."""
    write_atomically(file.with_name(JOINED), f"{joined}\n".encode("ascii"))


def read_partitions(file: Path) -> int | None:
    """Return how many partitions the fleet has: its size and the nodes that have joined; None before the first size."""
    size = read_size(file)
    return None if size is None else size + (read_size(file.with_name(JOINED)) or 0)


def read_size(file: Path) -> int | None:
    """Return the size; None before the first write."""
    try:
        return int(file.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
