"""Notices a worker whose memory grows message by message."""

import os
from dataclasses import dataclass
from pathlib import Path

from bouquet.runtime.memory_limit import memory_limit

MIB = 1 << 20
DEFAULT_MIB = 512
"""Permitted growth without a memory limit, in MiB."""
SHARE_OF_LIMIT = 4
"""Permitted growth in a container: its memory limit divided by this."""


def default_growth_mib() -> int:
    """Return by how many MiB a worker may grow if no setting says so."""
    limit = memory_limit()
    return DEFAULT_MIB if limit is None else max(1, limit // SHARE_OF_LIMIT // MIB)


def anonymous_mib() -> int:
    """Return this process's memory that belongs to no file, in MiB."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") // MIB


@dataclass(frozen=True)
class Growth:
    """By how much a process has grown.

    Attributes:
        start_mib: Its memory in MiB after the first message of each kind.
        now_mib: Its memory in MiB now.
    """

    start_mib: int
    now_mib: int


class MemoryGrowth:
    """The memory of this process since the app has built its caches: since the first message of each kind.

    Args:
        limit_mib: By how many MiB it may grow. 0: by any amount. None: `default_growth_mib`.
    """

    def __init__(self, limit_mib: int | None) -> None:
        self.limit_mib = default_growth_mib() if limit_mib is None else limit_mib
        self._kinds: set[str] = set()
        self._start_mib = 0

    def after_message(self, kind: str) -> Growth | None:
        """Return the growth if it exceeds the limit. Takes 20 microseconds.

        Args:
            kind: The type of the message: train, evaluate or query.
        """
        now = anonymous_mib()
        if kind not in self._kinds:
            self._kinds.add(kind)
            self._start_mib = max(self._start_mib, now)
        if not self.limit_mib or now - self._start_mib <= self.limit_mib:
            return None
        return Growth(self._start_mib, now)
