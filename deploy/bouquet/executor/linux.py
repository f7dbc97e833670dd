"""What the executor uses of Linux for its processes."""

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_CGROUP = Path("/sys/fs/cgroup")
LACKS_AVX = "this CPU probably lacks AVX, which TensorFlow needs"
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


def oom_kills() -> int:
    """Return how many processes of this container the kernel has killed for memory; 0 if that cannot be read."""
    with suppress(OSError, ValueError):
        for line in (_CGROUP / "memory.events").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


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
    if oom:
        text += ": out of memory, the container's memory limit was hit"
    elif number == signal.SIGKILL:
        text += ": out of memory?"
    elif number == signal.SIGILL:
        text += f": {LACKS_AVX}"
    return text


def describe_returncode(returncode: int) -> str:
    """Return how a process ended, to follow its name, from its `subprocess.Popen.returncode`."""
    return describe_exit(-returncode if returncode < 0 else returncode << 8, oom=False)


def _prctl(option: int, argument: "int | ctypes.c_char_p") -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)
