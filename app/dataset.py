"""The dataset of a run: chosen once, in the ServerApp, and passed to every node in the message's config.

The first of these that exists:

1. the folder in the environment variable ``BOUQUET_DATASET``,
2. the run-config's ``dataset``, if it is a folder,
3. the run-config's ``dataset`` on the hub,
4. the run-config's ``dataset`` in the hub client's local cache,
5. for CIFAR-10 only, the sample in the repository (``BOUQUET_DATASET_FALLBACK``).

On a node whose node config has a ``dataset``, that folder is used instead.
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

from app.exceptions import SettingError

HUB_DEFAULT = "uoft-cs/cifar10"
SAMPLE = "sample"
"""Name of the shipped sample in a message; its path differs between machines."""

COLUMNS = {"img", "label"}
PROBE_SECONDS = 5.0
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HINT = "give a folder in the layout of uoft-cs/cifar10: --run-config 'dataset=\"/path/to/folder\"'"


@dataclass(frozen=True)
class Dataset:
    """A dataset that was found.

    Attributes:
        name: The name sent to nodes: a name on the hub, an absolute path, or `SAMPLE`.
        source: Where it comes from.
        revision: The commit on the hub that every node reads; empty if it is unknown.
        folder: Its folder on this machine; None for a dataset on the hub.
        setting: The setting that selected it, for error messages.
        note: The reason for the choice, for the log; empty if it is obvious.
    """

    name: str
    source: Literal["hub", "path", "sample"]
    revision: str = ""
    folder: Path | None = None
    setting: str = "dataset"
    note: str = ""

    def __str__(self) -> str:
        """Return the name and, in brackets, the source and the note, for the run's log."""
        return f"{self.name} ({self.source}{', ' + self.note if self.note else ''})"

    def fingerprint(self) -> str:
        """Return a string that changes when the data changes; empty if that cannot be known without loading the data.

        For a folder it is a hash of the names, sizes and modification times of its files. Reading the files would take
        longer than the caches save.
        """
        if self.folder is None:
            return f"{self.name}@{self.revision}" if self.revision else ""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        stats = [(path.relative_to(self.folder).as_posix(), path.stat()) for path in files]
        listing = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()

    def files(self, split: str) -> list[Path]:
        """Return the parquet files of a split, sorted by path; the dataset must be a folder.

        Args:
            split: Name of the split: ``train`` or ``test``.

        Raises:
            SettingError: The folder has no files of this split.
        """
        files = sorted(self.folder.rglob(f"{split}-*.parquet")) if self.folder else []
        if not files:
            raise self.problem(f"the folder has no {split}-*.parquet")
        return files

    def problem(self, what: str, hint: str = _HINT) -> SettingError:
        """Return the error that names this dataset, what is wrong with it, and the fix."""
        return SettingError(self.setting, self.folder or self.name, what, hint)


def choose(run_config_dataset: str, environ: Mapping[str, str] = os.environ) -> Dataset:
    """Return the run's dataset; called in the ServerApp.

    Args:
        run_config_dataset: The run-config's ``dataset``.
        environ: The environment.

    Raises:
        SettingError: A folder does not exist, or neither the hub, nor its cache, nor the fallback has the dataset.
    """
    if forced := environ.get("BOUQUET_DATASET"):
        return _folder(forced, "BOUQUET_DATASET")
    if Path(run_config_dataset).expanduser().is_dir():
        return _folder(run_config_dataset, "dataset")
    if not _HUB_NAME.fullmatch(run_config_dataset):
        return _folder(run_config_dataset, "dataset")  # raises: this can only be a folder, and it does not exist
    reply = _ask_hub(run_config_dataset, environ)
    if reply.revision is not None:
        return Dataset(run_config_dataset, "hub", reply.revision)
    if (revision := _cached_revision(run_config_dataset, environ)) is not None:
        return Dataset(run_config_dataset, "hub", revision, note="from the local cache")
    fallback = environ.get("BOUQUET_DATASET_FALLBACK")
    if fallback and run_config_dataset == HUB_DEFAULT:
        note = "10,000 train and 2,000 test images of CIFAR-10, because " + reply.problem
        folder = _folder(fallback, "BOUQUET_DATASET_FALLBACK").folder
        return Dataset(SAMPLE, "sample", folder=folder, setting="BOUQUET_DATASET_FALLBACK", note=note)
    raise SettingError("dataset", run_config_dataset, f"is not a folder here, and {reply.problem}", _HINT)


def on_node(
    name: str, revision: str, node_config_dataset: str | None, environ: Mapping[str, str] = os.environ
) -> Dataset:
    """Return this node's copy of the dataset that a message names.

    Args:
        name: `Dataset.name` as the ServerApp sent it.
        revision: `Dataset.revision` as the ServerApp sent it.
        node_config_dataset: The path in the node's own config; it takes precedence over `name`.
        environ: The environment.

    Raises:
        SettingError: The folder does not exist on this node.
    """
    if node_config_dataset:
        return _folder(node_config_dataset, "node-config dataset")
    if name == SAMPLE:
        fallback = environ.get("BOUQUET_DATASET_FALLBACK")
        if not fallback:
            hint = "set it to the folder of the shipped sample, or give the node its own dataset in its node config"
            raise SettingError("BOUQUET_DATASET_FALLBACK", "", "this node does not have the sample", hint)
        folder = _folder(fallback, "BOUQUET_DATASET_FALLBACK").folder
        return Dataset(SAMPLE, "sample", folder=folder, setting="BOUQUET_DATASET_FALLBACK")
    if Path(name).is_absolute() or Path(name).is_dir():
        return _folder(name, "dataset")
    return Dataset(name, "hub", revision)


def check(dataset: Dataset, *, num_partitions: int, test_split: bool) -> None:
    """Check a folder's columns and number of images; this reads only the footers of its parquet files.

    Args:
        dataset: The dataset; one on the hub is not checked.
        num_partitions: Number of nodes that the train split must be large enough for.
        test_split: Whether the run needs a test split.

    Raises:
        SettingError: The folder is too small for `num_partitions` nodes, lacks a column, a file or the test split, or
            cannot be read.
    """
    if dataset.folder is None:
        return
    from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]  # noqa: PLC0415  # slow to import

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
    """Raise a `SettingError` if the column ``img`` or ``label`` is missing."""
    if missing := sorted(COLUMNS - columns):
        has = ", ".join(sorted(columns))
        raise dataset.problem(f"has no column {' and no column '.join(missing)}, only {has}")


def check_size(dataset: Dataset, images: int, num_partitions: int) -> None:
    """Raise a `SettingError` if there are fewer than two images per node: one to train on and one to evaluate on."""
    if images < 2 * num_partitions:
        raise dataset.problem(
            f"has {images} train images for {num_partitions} nodes, and each needs at least 2",
            "give a larger dataset or fewer SuperNodes",
        )


def _folder(path: str, setting: str) -> Dataset:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise SettingError(setting, path, "no such folder", _HINT)
    return Dataset(str(folder.resolve()), "path", folder=folder.resolve(), setting=setting)


@dataclass(frozen=True)
class _HubReply:
    revision: str | None
    problem: str = ""


def _ask_hub(name: str, environ: Mapping[str, str]) -> _HubReply:
    """Return the dataset's commit on the hub, or why it is unknown, within `PROBE_SECONDS`."""
    if environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return _HubReply(None, "HF_HUB_OFFLINE is set")
    endpoint = environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    replies: list[_HubReply] = []
    # In a thread, because a socket's timeout does not cover the DNS lookup.
    request = threading.Thread(
        target=lambda: replies.append(_get_revision(f"{endpoint}/api/datasets/{name}")), daemon=True
    )
    request.start()
    request.join(PROBE_SECONDS)
    return replies[0] if replies else _HubReply(None, f"the hub does not answer within {PROBE_SECONDS:g} s")


def _get_revision(url: str) -> _HubReply:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as response:  # noqa: S310  # the user's endpoint
            return _HubReply(str(json.load(response)["sha"]))
    except urllib.error.HTTPError as error:
        if error.headers.get("X-Error-Code"):  # the hub sent this; without the header, a proxy did
            return _HubReply(None, f"the hub has no such dataset (HTTP {error.code})")
        return _HubReply(None, f"the hub does not answer (HTTP {error.code})")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _HubReply(None, f"the hub does not answer ({getattr(error, 'reason', error)})")


def _cached_revision(name: str, environ: Mapping[str, str]) -> str | None:
    """Return the dataset's commit in the hub client's cache; None if it is not cached."""
    home = Path(environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    ref = cache / f"datasets--{name.replace('/', '--')}" / "refs" / "main"
    try:
        revision = ref.read_text().strip()
    except OSError:
        return None
    return revision if (ref.parents[1] / "snapshots" / revision).is_dir() else None
