"""What the executor asks of Linux for its processes."""

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_CGROUP = Path("/sys/fs/cgroup")
_OOM_SCORE = 800  # of -1000 to 1000: the kernel takes a worker first, and Flower last


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however that comes about."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGKILL)


def name_process(name: str) -> None:
    """Set the name that `ps` and `top` show: at most 15 bytes."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]))


def volunteer_for_oom_kill() -> None:
    """When memory runs out, have the kernel choose this process rather than Flower's."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


def oom_kills() -> int:
    """How many processes of this container the kernel has killed for memory; 0 where that cannot be read."""
    with suppress(OSError, ValueError):
        for line in (_CGROUP / "memory.events").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def describe_exit(status: int, oom: bool) -> str:
    """Say how a process ended, from its wait status."""
    if not os.WIFSIGNALED(status):
        return f"exited with code {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    text = f"was killed by signal {number} ({signal.Signals(number).name})"
    if oom:
        text += ": out of memory, the container's memory limit was hit"
    elif number == signal.SIGKILL:
        text += ": out of memory?"
    return text


def _prctl(option: int, argument: "int | ctypes.c_char_p") -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)
