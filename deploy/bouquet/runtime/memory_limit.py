"""The memory limit of the container that this process runs in."""

from pathlib import Path

_UNLIMITED = 1 << 60
"""From here on, cgroup v1 means no limit."""


def memory_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the container's memory limit in bytes; None if there is none, or no container."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2, v1
        try:
            limit = int((cgroup / name).read_text())
        except (OSError, ValueError):  # not this version, or `max`
            continue
        return limit if limit < _UNLIMITED else None
    return None
