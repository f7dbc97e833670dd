"""Whether the CPU has the instructions that TensorFlow needs."""

import platform
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from bouquet.errors import HostError

CPUINFO = Path("/proc/cpuinfo")
TENSORFLOW_PACKAGES = frozenset({"tensorflow", "tensorflow-cpu"})


def cpu(packages: Collection[str]) -> str:
    """Check that this CPU has AVX, without which the import of TensorFlow ends the process with SIGILL.

    Args:
        packages: The names of the packages that the fleet installs.

    Raises:
        HostError: The CPU lacks AVX and the app uses TensorFlow.
    """
    flags = cpu_flags()
    if not flags or "avx" in flags:
        return "has AVX, which TensorFlow needs" if flags else f"{platform.machine()}, not checked"
    if not TENSORFLOW_PACKAGES.isdisjoint(packages):
        raise HostError(
            "this CPU lacks AVX, which TensorFlow needs",
            "give the virtual machine the host's CPU (QEMU: -cpu host), or run an app without TensorFlow: APP=path",
        )
    return "lacks AVX, which TensorFlow needs; the app does without TensorFlow"


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
