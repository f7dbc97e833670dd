"""The CPU threads that one node may use."""

import os
from pathlib import Path


def share_of_cores(supernodes: int, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many threads each of `supernodes` nodes on this machine gets, at least 1.

    A container with a CPU limit gets as many threads as the limit has cores. Others share the machine's cores.
    """
    limit = _cpu_limit(cgroup)
    return max(1, int(limit) if limit is not None else len(os.sched_getaffinity(0)) // supernodes)


def _cpu_limit(cgroup: Path) -> float | None:
    """Return the cores that the container may use (`docker run --cpus`); None if there is no limit."""
    try:
        if (cgroup / "cpu.max").exists():  # cgroup v2
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # no cgroup, or `max`: no limit
        return None
