"""How many SuperNodes the fleet is to have: one number in a file that all share.

It is no part of the environment of a container that stays, because Compose makes a container anew whose environment
has changed: `SUPERNODES=20 docker compose up -d` must leave the ten that run as they are. A one-shot service writes the
file; SuperNodes and ServerApps read it. See docs/decisions/0012-scale-by-one-number.md.
"""

import os
from pathlib import Path


def write_size(file: Path, supernodes: int) -> None:
    """Write the size; whoever reads meanwhile sees the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_text(f"{supernodes}\n", encoding="ascii")
    fresh.replace(file)


def read_size(file: Path) -> int | None:
    """Return the size; None where nobody has written it yet."""
    try:
        return int(file.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
