"""What the nodes compute on."""

from collections.abc import Callable

from bouquet.gpu import plan as gpu
from bouquet.gpu.plan import Share
from bouquet.settings.gpu_settings import GpuSettings
from bouquet.settings.host import HostSettings

SharesOf = Callable[[GpuSettings, int], tuple[tuple[Share, ...], str]]
"""Plans what so many nodes compute on, and returns the reason too (`bouquet.gpu.nvidia`)."""


def gpus(settings: HostSettings, shares: SharesOf) -> str:
    """Check that the nodes fit on the GPUs; without GPUs they compute on the CPU."""
    lines = gpu.summary(*shares(settings.gpus, settings.supernodes))
    return "; ".join(line.removeprefix("GPUs:").strip() for line in lines)
