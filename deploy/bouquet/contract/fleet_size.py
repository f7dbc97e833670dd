"""The fleet's size: one number in a file that all SuperNodes share.

The size is not in the environment of a long-running container, because Compose recreates a container whose
environment has changed: `SUPERNODES=20 docker compose up -d` must leave the ten running SuperNodes alone. The one-shot
service `setup` writes the file; SuperNodes and ServerApps read it. See docs/decisions/0012-scale-by-one-number.md.
"""

from pathlib import Path

from bouquet.files import write_atomically


def write_size(file: Path, supernodes: int) -> None:
    """Write the size; a concurrent reader sees the old number or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, f"{supernodes}\n".encode("ascii"))


def read_size(file: Path) -> int | None:
    """Return the size; None before the first write."""
    try:
        return int(file.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
