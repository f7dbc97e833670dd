"""The dataset of a run: chosen once, in the ServerApp, and named in every message, so that all nodes read the same.

The first of these that exists: the folder in the environment variable ``BOUQUET_DATASET``; the run-config's
``dataset`` as a folder, on the hub, or in the local Hugging Face cache; for CIFAR-10 only, the sample in the repository
(``BOUQUET_DATASET_FALLBACK``).
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.run_config import SettingError

CIFAR10, SAMPLE = "uoft-cs/cifar10", "sample"
HINT = f"give a folder in the layout of {CIFAR10}: --run-config 'dataset=\"/path/to/folder\"'"
PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class Dataset:
    """A dataset on the hub, or a folder in the same layout."""

    name: str  # for the nodes: a name on the hub, an absolute path, or `SAMPLE`, whose path differs between machines
    revision: str  # changes with the data: the commit on the hub, or a hash of a folder's file names, sizes and times
    folder: Path | None = None
    setting: str = "dataset"  # for errors: the setting that names it
    note: str = ""  # for the log: where it comes from

    def files(self, folder: Path) -> dict[str, list[str]]:
        """Return the parquet files of each split in a folder; raise a `SettingError` if it has none to train on."""
        files = {split: sorted(map(str, folder.rglob(f"{split}-*.parquet"))) for split in ("train", "test")}
        if not files["train"]:
            raise self.problem("the folder has no train-*.parquet")
        return {split: paths for split, paths in files.items() if paths}

    def problem(self, what: str, hint: str = HINT) -> SettingError:
        """Return the error that names this dataset, what is wrong with it, and the fix."""
        return SettingError(self.setting, self.folder or self.name, " ".join(what.split()), hint)


def choose(name: str) -> Dataset:
    """Return the run's dataset, from the run-config's ``dataset``; raise a `SettingError` if there is none."""
    if forced := os.environ.get("BOUQUET_DATASET"):
        return _folder(forced, "BOUQUET_DATASET")
    if Path(name).expanduser().is_dir() or name.startswith(("/", ".", "~")):
        return _folder(name, "dataset")
    revision, problem = _ask_hub(name)
    if revision:
        return Dataset(name, revision, note="hub")
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    cache = Path(os.environ.get("HF_DATASETS_CACHE", f"{home}/datasets")).expanduser() / name.replace("/", "___")
    for info in sorted(cache.glob("*/*/*/dataset_info.json")):
        return Dataset(name, info.parent.name, note=f"from the local cache, because {problem}")
    if name == CIFAR10 and (sample := os.environ.get("BOUQUET_DATASET_FALLBACK")):
        note = f"10,000 train and 2,000 test images of CIFAR-10, because {problem}"
        return _folder(sample, "BOUQUET_DATASET_FALLBACK", SAMPLE, note)
    raise SettingError("dataset", name, f"is not a folder here, and {problem}", HINT)


def on_node(name: str, revision: str, own: str | None) -> Dataset:
    """Return this node's copy of the dataset that a message names, or `own`, the folder in its node config."""
    if own:
        return _folder(own, "node-config dataset")
    if name == SAMPLE:
        return _folder(os.environ.get("BOUQUET_DATASET_FALLBACK", ""), "BOUQUET_DATASET_FALLBACK", SAMPLE)
    return _folder(name, "dataset") if Path(name).is_absolute() else Dataset(name, revision)


def _folder(path: str, setting: str, name: str = "", note: str = "folder") -> Dataset:
    folder = Path(path).expanduser().resolve()
    if not path or not folder.is_dir():
        raise SettingError(setting, path, "no such folder", HINT)
    files = [(file.relative_to(folder).as_posix(), file.stat()) for file in folder.rglob("*") if file.is_file()]
    listing = sorted([path, stat.st_size, stat.st_mtime_ns] for path, stat in files)
    return Dataset(name or str(folder), hashlib.sha256(json.dumps(listing).encode()).hexdigest(), folder, setting, note)


def _ask_hub(name: str) -> tuple[str, str]:
    """Return the dataset's commit on the hub, and why it is unknown; one of the two is empty."""
    from huggingface_hub import HfApi, is_offline_mode  # noqa: PLC0415  # slow to import
    from huggingface_hub.errors import RepositoryNotFoundError  # noqa: PLC0415

    if is_offline_mode():
        return "", "HF_HUB_OFFLINE is set"
    thread = ThreadPoolExecutor(1)  # because the timeout of a request does not cover the DNS lookup
    try:
        return str(thread.submit(HfApi().dataset_info, name, timeout=PROBE_SECONDS).result(PROBE_SECONDS).sha), ""
    except RepositoryNotFoundError:
        return "", "the hub has no such dataset"
    except Exception as error:
        return "", f"the hub does not answer ({' '.join(f'{type(error).__name__} {error}'.split())})"
