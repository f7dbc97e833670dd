"""The cost of a piece of work: CPU time and memory of the whole machine.

Both values cover one process, eleven containers or a simulation alike, Docker's own share included. Nothing else should
run during a measurement.
"""

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psutil

SAMPLE_SECONDS = 0.5


def cpu_seconds() -> float:
    """Return the CPU time that this machine has spent since it started, in seconds; without idle, iowait and steal."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def available() -> int:
    """Return the memory that is available without swapping, in bytes."""
    return int(psutil.virtual_memory().available)


@dataclass
class Cost:
    """The cost of a block of code: `with Cost(baseline) as cost: ...`.

    Attributes:
        baseline: Memory available before the first measurement, in bytes; `memory` is relative to it.
        wall: Duration of the block, in seconds.
        cpu: CPU time of the whole machine during the block, in seconds.
        memory: Peak memory over the baseline during the block, in bytes.
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
