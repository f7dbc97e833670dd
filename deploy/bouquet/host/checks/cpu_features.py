"""Whether the CPU has the instructions that TensorFlow needs."""

import platform
from contextlib import suppress
from pathlib import Path

from bouquet.errors import HostError

CPUINFO = Path("/proc/cpuinfo")
TENSORFLOW_MODULES = ("tensorflow", "keras")


def cpu(preload: tuple[str, ...] | None) -> str:
    """Check that this CPU has AVX, without which the import of TensorFlow ends the process with SIGILL.

    Args:
        preload: The modules that every warm process imports (`EXECUTOR_PRELOAD`); None: what is installed.

    Raises:
        HostError: The CPU lacks AVX and the fleet would import TensorFlow.
    """
    flags = cpu_flags()
    if not flags or "avx" in flags:
        return "has AVX, which TensorFlow needs" if flags else f"{platform.machine()}, not checked"
    if preload is None or any(module.partition(".")[0] in TENSORFLOW_MODULES for module in preload):
        raise HostError(
            "this CPU lacks AVX, which TensorFlow needs",
            "give the virtual machine the host's CPU (QEMU: -cpu host), or, for an app without TensorFlow, set "
            "EXECUTOR_PRELOAD=none",
        )
    return "lacks AVX, which TensorFlow needs; EXECUTOR_PRELOAD has no TensorFlow, so other apps work"


def cpu_flags() -> set[str]:
    """Return the CPU's features; empty on other architectures than x86-64, and where the kernel does not list them."""
    if platform.machine() != "x86_64":
        return set()
    with suppress(OSError):
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "flags":
                return set(value.split())
    return set()
