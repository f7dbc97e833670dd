"""Whether there is data to train on."""

from collections.abc import Callable
from pathlib import Path

from bouquet.errors import HostError
from bouquet.host.checks.user_files import check_dataset
from bouquet.host.hub import HubAnswer
from bouquet.host.readable import Reader

CIFAR10 = "datasets/uoft-cs___cifar10"
"""Where a Hugging Face cache has it."""


def data(
    dataset: Path | None,
    ask_hub: Callable[[], HubAnswer],
    reader: Reader | None = None,
    hf_cache: Path | None = None,
) -> str:
    """Check that there is data to train on: from a folder, from the hub, from a brought cache, or the shipped sample.

    Args:
        dataset: The folder; None for the hub or the sample.
        ask_hub: Asks the hub.
        reader: Who reads the folder; None if that is unknown.
        hf_cache: The folder of HF_CACHE.

    Raises:
        HostError: The folder has no parquet file.
        SettingError: The reader cannot read the folder.
    """
    if dataset is not None:
        if reader is not None:
            check_dataset(dataset, reader)
        if not any(dataset.rglob("*.parquet")):
            raise HostError(
                f"DATASET={dataset}: there is no .parquet file in this folder",
                "give a folder in the layout of uoft-cs/cifar10, or leave DATASET out",
            )
        return f"{dataset} (DATASET)"
    if problem := ask_hub().problem:
        if hf_cache is not None and (hf_cache / CIFAR10).is_dir():
            return f"uoft-cs/cifar10 in {hf_cache} (HF_CACHE), because {problem}"
        return f"the shipped sample, because {problem}; for all of CIFAR-10: DATASET=path/to/cifar10"
    return "uoft-cs/cifar10, the hub answers"
