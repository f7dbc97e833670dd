"""Whether there is data to train on."""

from collections.abc import Callable
from pathlib import Path

from bouquet.errors import HostError
from bouquet.host.hub import HubAnswer


def data(dataset: Path | None, ask_hub: Callable[[], HubAnswer]) -> str:
    """Check that there is data to train on: from a folder, from the hub, or the shipped sample."""
    if dataset is not None:
        if not any(dataset.rglob("*.parquet")):
            raise HostError(
                f"DATASET={dataset}: there is no .parquet file in this folder",
                "give a folder in the layout of uoft-cs/cifar10, or leave DATASET out",
            )
        return f"{dataset} (DATASET)"
    if problem := ask_hub().problem:
        return f"the shipped sample, because {problem}; for all of CIFAR-10: DATASET=path/to/cifar10"
    return "uoft-cs/cifar10, the hub answers"
