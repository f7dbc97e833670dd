"""What a piece of work costs this machine: CPU seconds and memory, of everything that runs on it.

The same two figures for one process, eleven containers or a simulation, Docker's own share included; so nothing
else should run meanwhile. Sources: `/proc/stat` (all but idle and iowait) and `/proc/meminfo` (`MemAvailable`).
"""

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

SAMPLE_SECONDS = 0.5


def cpu_seconds() -> float:
    """Return the CPU seconds that this machine has spent since it started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    del steal  # taken by others
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def available() -> int:
    """Return the bytes of memory that could be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")


@dataclass
class Cost:
    """A block of work, measured: `with Cost(baseline) as cost: ...`.

    Parameters
    ----------
    baseline : int
        Bytes available before anything of the kind ran: memory counts from there.
    """

    baseline: int
    wall: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self.cpu, self.wall = cpu_seconds(), time.monotonic()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cpu, self.wall = cpu_seconds() - self.cpu, time.monotonic() - self.wall
        self._ended.set()
        self._sampler.join()

    def _sample(self) -> None:
        while True:
            self.memory = max(self.memory, self.baseline - available())
            if self._ended.wait(SAMPLE_SECONDS):
                return
