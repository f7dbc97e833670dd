"""The dataset of a run: chosen once, in the ServerApp, and named in every message, so that all nodes read the same.

The first of these that exists:

1. the folder in the environment variable ``BOUQUET_DATASET``,
2. the run-config's ``dataset``, if it is a folder,
3. the run-config's ``dataset`` on the hub,
4. the run-config's ``dataset`` in the local Hugging Face cache,
5. for CIFAR-10 only, the sample in the repository (``BOUQUET_DATASET_FALLBACK``).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from logging import INFO
from pathlib import Path

from flwr.common import log

from app.run_config import SettingError

CIFAR10, SAMPLE = "uoft-cs/cifar10", "sample"
PROBE_SECONDS = 5.0
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HINT = f"give a folder in the layout of {CIFAR10}: --run-config 'dataset=\"/path/to/folder\"'"


@dataclass(frozen=True)
class Dataset:
    """A dataset that was found.

    Attributes:
        name: A name on the hub, an absolute path, or `SAMPLE`, whose path differs between machines.
        revision: The commit on the hub that every node reads; empty for a folder.
        folder: Its folder on this machine; None for a dataset on the hub.
        setting: The setting that selected it, for error messages.
    """

    name: str
    revision: str = ""
    folder: Path | None = None
    setting: str = "dataset"

    def fingerprint(self) -> str:
        """Return a string that changes with the data; empty if only loading the data would tell.

        For a folder: a hash of its files' names, sizes and times. Reading the files would take longer than a cache
        saves.
        """
        if self.folder is None:
            return f"{self.name}@{self.revision}" if self.revision else ""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        stats = [(path.relative_to(self.folder).as_posix(), path.stat()) for path in files]
        listing = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()

    def files(self, split: str) -> list[Path]:
        """Return the folder's parquet files of a split, ``train`` or ``test``; raise a `SettingError` for none."""
        files = sorted(self.folder.rglob(f"{split}-*.parquet")) if self.folder else []
        if not files:
            raise self.problem(f"the folder has no {split}-*.parquet")
        return files

    def check(self, columns: Iterable[str], num_images: int = 0, num_partitions: int = 0) -> None:
        """Raise a `SettingError` if a column is missing, or a partition cannot have an image for training and testing."""
        if missing := sorted({"img", "label"} - set(columns)):
            raise self.problem(f"has no column {' and no column '.join(missing)}, only {', '.join(sorted(columns))}")
        if num_images < 2 * num_partitions:
            problem = f"has {num_images} train images for {num_partitions} nodes, and each needs at least 2"
            raise self.problem(problem, "give a larger dataset or fewer SuperNodes")

    def check_files(self, num_partitions: int, *, test_split: bool) -> None:
        """Check a folder before the run, by the footers of its parquet files; a dataset on the hub is not checked."""
        if self.folder is None:
            return
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]  # noqa: PLC0415  # slow to import

        for split in ("train", "test")[: 1 + test_split]:
            num_images = 0
            for file in self.files(split):
                try:
                    footer = parquet.read_metadata(file)
                except (ArrowException, OSError) as error:
                    raise self.problem(f"{file.name} cannot be read ({error})") from error
                self.check(footer.schema.to_arrow_schema().names)
                num_images += footer.num_rows
            self.check({"img", "label"}, num_images, num_partitions if split == "train" else 0)

    def problem(self, what: str, hint: str = _HINT) -> SettingError:
        """Return the error that names this dataset, what is wrong with it, and the fix."""
        return SettingError(self.setting, self.folder or self.name, what, hint)


def choose(name: str) -> Dataset:
    """Return the run's dataset, and log the choice; called in the ServerApp.

    Raises:
        SettingError: A folder does not exist, or neither the hub, nor its cache, nor the fallback has the dataset.
    """
    dataset, note = _choose(name)
    log(INFO, "Dataset: %s (%s)", dataset.name, note)
    return dataset


def on_node(name: str, revision: str, own: str | None) -> Dataset:
    """Return this node's copy of the dataset that a message names, or the node's own, from its node config.

    Raises:
        SettingError: The folder does not exist on this node.
    """
    if own:
        return _folder(own, "node-config dataset")
    if name == SAMPLE:
        return _folder(os.environ.get("BOUQUET_DATASET_FALLBACK", ""), "BOUQUET_DATASET_FALLBACK", SAMPLE)
    return _folder(name, "dataset") if Path(name).is_absolute() else Dataset(name, revision)


def _choose(name: str) -> tuple[Dataset, str]:
    if forced := os.environ.get("BOUQUET_DATASET"):
        return _folder(forced, "BOUQUET_DATASET"), "from DATASET"
    if Path(name).expanduser().is_dir() or not _HUB_NAME.fullmatch(name):
        return _folder(name, "dataset"), "a folder"
    revision, problem = _ask_hub(name)
    if revision:
        return Dataset(name, revision), "from the hub"
    if revision := _cached_revision(name):
        return Dataset(name, revision), "from the local cache"
    if name == CIFAR10 and (sample := os.environ.get("BOUQUET_DATASET_FALLBACK")):
        note = f"10,000 train and 2,000 test images of CIFAR-10, because {problem}"
        return _folder(sample, "BOUQUET_DATASET_FALLBACK", SAMPLE), note
    raise SettingError("dataset", name, f"is not a folder here, and {problem}", _HINT)


def _folder(path: str, setting: str, name: str = "") -> Dataset:
    folder = Path(path).expanduser()
    if not path or not folder.is_dir():
        raise SettingError(setting, path, "no such folder", _HINT)
    return Dataset(name or str(folder.resolve()), folder=folder.resolve(), setting=setting)


def _ask_hub(name: str) -> tuple[str, str]:
    """Return the dataset's commit on the hub, or else an empty string and the reason, within `PROBE_SECONDS`."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "", "HF_HUB_OFFLINE is set"
    url = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/api/datasets/{name}"
    answers: list[tuple[str, str]] = []
    # In a thread, because a socket's timeout does not cover the DNS lookup.
    request = threading.Thread(target=lambda: answers.append(_get_revision(url)), daemon=True)
    request.start()
    request.join(PROBE_SECONDS)
    return answers[0] if answers else ("", f"the hub does not answer within {PROBE_SECONDS:g} s")


def _get_revision(url: str) -> tuple[str, str]:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as response:  # noqa: S310  # the user's endpoint
            return str(json.load(response)["sha"]), ""
    except urllib.error.HTTPError as error:
        # The hub sends this header; a proxy does not.
        what = "has no such dataset" if error.headers.get("X-Error-Code") else "does not answer"
        return "", f"the hub {what} (HTTP {error.code})"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return "", f"the hub does not answer ({getattr(error, 'reason', error)})"


def _cached_revision(name: str) -> str:
    """Return the commit in the cache of the hub's client or of `datasets`; empty if the dataset is not cached."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    files = Path(os.environ.get("HF_HUB_CACHE", home / "hub")) / f"datasets--{name.replace('/', '--')}"
    loaded = Path(os.environ.get("HF_DATASETS_CACHE", home / "datasets")) / name.replace("/", "___")
    main = files / "refs" / "main"
    if main.is_file() and (files / "snapshots" / main.read_text().strip()).is_dir():
        return main.read_text().strip()
    return next((path.parent.name for path in sorted(loaded.glob("*/*/*/dataset_info.json"))), "")
