"""What the nodes compute on."""

from bouquet.gpu import nvidia
from bouquet.gpu import plan as gpu
from bouquet.settings.host import HostSettings


def gpus(settings: HostSettings, containers: bool) -> str:
    """Check that the nodes fit on the GPUs; without GPUs they compute on the CPU."""
    shares = nvidia.for_containers if containers else nvidia.for_processes
    lines = gpu.summary(*shares(settings.gpus, settings.supernodes))
    return "; ".join(line.removeprefix("GPUs:").strip() for line in lines)
