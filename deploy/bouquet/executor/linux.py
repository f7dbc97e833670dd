"""What the executor uses of Linux for its processes."""

import ctypes
import os
import re
import signal
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_M_ARENA_MAX = -8  # of malloc.h
_CGROUP = Path("/sys/fs/cgroup")
LACKS_AVX = "this CPU probably lacks AVX, which TensorFlow needs"
_OOM_COUNTERS = ("memory.events", "memory/memory.oom_control")  # of cgroup v2 and v1; both have a line `oom_kill 1`
_LIMIT = "BOUQUET_MEMORY_LIMIT"  # set by docker-compose.yml: `SUPERLINK_MEMORY=4g`
_OOM_SCORE = 800  # from -1000 to 1000: when memory runs out, the kernel kills workers before Flower


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies for any reason.

    Args:
        parent: The parent's process id. If it has died already, this process dies now.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), signal.SIGKILL)


def name_process(name: str) -> None:
    """Set the name that `ps` and `top` show: at most 15 bytes."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]))


def volunteer_for_oom_kill() -> None:
    """Have the kernel kill this process rather than Flower's when memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


def share_freed_memory() -> None:
    """Have the threads that start from now on share two heaps: what one frees, another one uses.

    By default the C library gives each thread a heap of its own, up to 8 for each core, and keeps what was freed in
    it. A process that passes on models in chunks of 5 MiB, in many threads, then holds several times what it uses.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def oom_kills() -> int:
    """Return how many processes of this container the kernel has killed for memory; 0 if that is unknown."""
    return _oom_kills() or 0


def describe_exit(status: int, oom: bool) -> str:
    """Return how a process ended, to follow its name: "exited with code 1".

    Args:
        status: Its wait status, as `os.waitpid` returns it.
        oom: Whether the kernel has killed a process of this container for memory meanwhile.
    """
    if not os.WIFSIGNALED(status):
        return f"exited with code {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    text = f"was killed by signal {number} ({signal.Signals(number).name})"
    if number == signal.SIGILL:
        return f"{text}: {LACKS_AVX}"
    if number != signal.SIGKILL:
        return text
    if oom:
        return f"{text}: out of memory. {_memory_advice()}"
    return f"{text}: out of memory? {_memory_advice()}" if _oom_kills() is None else text


def describe_returncode(returncode: int, oom: bool = False) -> str:
    """Return how a process ended, to follow its name.

    Args:
        returncode: Its `subprocess.Popen.returncode`.
        oom: Whether the kernel has killed a process of this container for memory meanwhile.
    """
    return describe_exit(-returncode if returncode < 0 else returncode << 8, oom)


def _oom_kills() -> int | None:
    """Return the kernel's count; None outside Bouquet's containers, where it counts other processes, or none."""
    if _LIMIT not in os.environ:
        return None
    for name in _OOM_COUNTERS:
        with suppress(OSError, ValueError):
            for line in (_CGROUP / name).read_text().splitlines():
                event, _, count = line.partition(" ")
                if event == "oom_kill":
                    return int(count)
    return None


def _memory_advice() -> str:
    """Return which limit applies to this process, and what to change."""
    limit = os.environ.get(_LIMIT)
    if limit is None:
        return (
            "Processes of a process fleet have no limit but the machine's memory: "
            "set fewer SUPERNODES, or use a smaller model"
        )
    number = re.search(r"\d+", limit)
    example = f", for example {limit[: number.start()]}{2 * int(number[0])}{limit[number.end() :]}" if number else ""
    return f"The container's memory limit is {limit}: set a higher one{example}"


def _prctl(option: int, argument: "int | ctypes.c_char_p") -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)
