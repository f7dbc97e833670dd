"""Which dataset a run uses: decided once, in the ServerApp, and named to every node in the message's config.

The order: the variable ``BOUQUET_DATASET``; the run-config's ``dataset`` where it is a folder; the hub; the
sample that the repository ships (``BOUQUET_DATASET_FALLBACK``). A node's own ``dataset`` in its node config
wins on that node.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.errors import SettingError

HUB_DEFAULT = "uoft-cs/cifar10"
SAMPLE = "sample"
"""What the ServerApp calls the shipped sample in a message: its path differs from machine to machine."""

COLUMNS = {"img", "label"}
PROBE_SECONDS = 5.0
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_MEND = "give a folder in the layout of uoft-cs/cifar10: --run-config 'dataset=\"/path/to/folder\"'"


@dataclass(frozen=True)
class Dataset:
    """A dataset that was found.

    Attributes:
        name: What nodes are told: a name on the hub, an absolute path, or `SAMPLE`.
        source: Where it comes from.
        revision: The hub's commit, where it is known; every node then reads that one.
        folder: Where it lies on this machine; None for the hub.
        setting: The setting that chose it, for error messages.
        note: Why it was chosen, where that is not plain.
    """

    name: str
    source: Literal["hub", "path", "sample"]
    revision: str = ""
    folder: Path | None = None
    setting: str = "dataset"
    note: str = ""

    def __str__(self) -> str:
        """Return the name and, in brackets, the source: the log line that says what a run used."""
        return f"{self.name} ({self.source}{', ' + self.note if self.note else ''})"

    def fingerprint(self) -> str:
        """Return a text that changes when the data does; empty where that cannot be told without a load.

        A folder's is made of its files' names, sizes and modification times: reading them would cost more
        than what the fingerprint saves.
        """
        if self.folder is None:
            return f"{self.name}@{self.revision}" if self.revision else ""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        stats = [(path.relative_to(self.folder).as_posix(), path.stat()) for path in files]
        listing = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()

    def files(self, split: str) -> list[Path]:
        """Return the parquet files of a split of a folder.

        Raises:
            SettingError: There are none.
        """
        files = sorted(self.folder.rglob(f"{split}-*.parquet")) if self.folder else []
        if not files:
            raise self.problem(f"the folder has no {split}-*.parquet")
        return files

    def problem(self, what: str, mend: str = _MEND) -> SettingError:
        """Return the error that says what is wrong with this dataset."""
        return SettingError(self.setting, self.folder or self.name, what, mend)


def choose(run_config_dataset: str, environ: Mapping[str, str] = os.environ) -> Dataset:
    """Choose the run's dataset, in the ServerApp.

    Raises:
        SettingError: A named folder is not there, or neither the hub nor a fallback has the dataset.
    """
    if forced := environ.get("BOUQUET_DATASET"):
        return _folder(forced, "BOUQUET_DATASET")
    if Path(run_config_dataset).expanduser().is_dir():
        return _folder(run_config_dataset, "dataset")
    if not _HUB_NAME.fullmatch(run_config_dataset):
        return _folder(run_config_dataset, "dataset")  # raises: it can only be a folder, and is not there
    answer = _ask_hub(run_config_dataset, environ)
    if answer.revision is not None:
        return Dataset(run_config_dataset, "hub", answer.revision)
    if (revision := _cached_revision(run_config_dataset, environ)) is not None:
        return Dataset(run_config_dataset, "hub", revision, note="from the local cache")
    fallback = environ.get("BOUQUET_DATASET_FALLBACK")
    if fallback and run_config_dataset == HUB_DEFAULT:
        note = "10,000 train and 2,000 test images of CIFAR-10, as " + answer.problem
        folder = _folder(fallback, "BOUQUET_DATASET_FALLBACK").folder
        return Dataset(SAMPLE, "sample", folder=folder, setting="BOUQUET_DATASET_FALLBACK", note=note)
    raise SettingError("dataset", run_config_dataset, f"is no folder here, and {answer.problem}", _MEND)


def on_node(
    name: str, revision: str, node_config_dataset: str | None, environ: Mapping[str, str] = os.environ
) -> Dataset:
    """Return the dataset a message names, as this node has it.

    Args:
        name: `Dataset.name` as the ServerApp sent it.
        revision: `Dataset.revision` as the ServerApp sent it.
        node_config_dataset: The node's own path, which wins.
        environ: The environment.

    Raises:
        SettingError: The folder is not there on this node.
    """
    if node_config_dataset:
        return _folder(node_config_dataset, "node-config dataset")
    if name == SAMPLE:
        fallback = environ.get("BOUQUET_DATASET_FALLBACK")
        if not fallback:
            mend = "set it to the folder of the shipped sample, or give the node its own data in node-config"
            raise SettingError("BOUQUET_DATASET_FALLBACK", "", "this node does not know the sample", mend)
        folder = _folder(fallback, "BOUQUET_DATASET_FALLBACK").folder
        return Dataset(SAMPLE, "sample", folder=folder, setting="BOUQUET_DATASET_FALLBACK")
    if Path(name).is_absolute() or Path(name).is_dir():
        return _folder(name, "dataset")
    return Dataset(name, "hub", revision)


def check(dataset: Dataset, *, num_partitions: int, test_split: bool) -> None:
    """Check a folder's columns and number of images from its parquet files' footers, without reading them.

    Raises:
        SettingError: The folder cannot serve `num_partitions` nodes, or has no test split where one is needed.
    """
    if dataset.folder is None:
        return
    from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]  # noqa: PLC0415  # slow to import, and not needed for the hub

    for split in ["train", "test"] if test_split else ["train"]:
        images = 0
        for file in dataset.files(split):
            try:
                footer = parquet.read_metadata(file)
            except (ArrowException, OSError) as error:
                raise dataset.problem(f"{file.name} cannot be read ({error})") from error
            check_columns(dataset, set(footer.schema.to_arrow_schema().names))
            images += footer.num_rows
        check_size(dataset, images, num_partitions if split == "train" else 0)


def check_columns(dataset: Dataset, columns: set[str]) -> None:
    """Raise a `SettingError` where ``img`` or ``label`` is missing."""
    if missing := sorted(COLUMNS - columns):
        has = ", ".join(sorted(columns))
        raise dataset.problem(f"has no column {' and no column '.join(missing)}, only {has}")


def check_size(dataset: Dataset, images: int, num_partitions: int) -> None:
    """Raise a `SettingError` where a node would not get the two images that a train and a test set need."""
    if images < 2 * num_partitions:
        raise dataset.problem(
            f"has {images} train images for {num_partitions} nodes, and each needs at least 2",
            "give a larger dataset or fewer SuperNodes",
        )


def _folder(path: str, setting: str) -> Dataset:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise SettingError(setting, path, "no such folder", _MEND)
    return Dataset(str(folder.resolve()), "path", folder=folder.resolve(), setting=setting)


@dataclass(frozen=True)
class _Answer:
    revision: str | None
    problem: str = ""


def _ask_hub(name: str, environ: Mapping[str, str]) -> _Answer:
    """Ask the hub for the dataset's commit; no answer within `PROBE_SECONDS` counts as none."""
    if environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return _Answer(None, "HF_HUB_OFFLINE is set")
    endpoint = environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    answers: list[_Answer] = []
    # In a thread, because a socket's timeout does not cover looking up the name.
    asking = threading.Thread(
        target=lambda: answers.append(_get_revision(f"{endpoint}/api/datasets/{name}")), daemon=True
    )
    asking.start()
    asking.join(PROBE_SECONDS)
    return answers[0] if answers else _Answer(None, f"the hub does not answer within {PROBE_SECONDS:g} s")


def _get_revision(url: str) -> _Answer:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as response:  # noqa: S310  # http(s) by its making
            return _Answer(str(json.load(response)["sha"]))
    except urllib.error.HTTPError as error:
        if error.headers.get("X-Error-Code"):  # the hub's own word; without it, a proxy's
            return _Answer(None, f"the hub has no such dataset (HTTP {error.code})")
        return _Answer(None, f"the hub does not answer (HTTP {error.code})")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _Answer(None, f"the hub does not answer ({getattr(error, 'reason', error)})")


def _cached_revision(name: str, environ: Mapping[str, str]) -> str | None:
    """Return the commit of the dataset in the hub client's cache; None where it is not cached."""
    home = Path(environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    ref = cache / f"datasets--{name.replace('/', '--')}" / "refs" / "main"
    try:
        revision = ref.read_text().strip()
    except OSError:
        return None
    return revision if (ref.parents[1] / "snapshots" / revision).is_dir() else None
