from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from app import dataset
from app.dataset import Dataset
from app.exceptions import SettingError

from .conftest import MakeFolder

HUB = "uoft-cs/cifar10"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"}


class _Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path == f"/api/datasets/{HUB}"
        broken = self.path.endswith("/broken")
        self.send_response(200 if known else 503 if broken else 401)
        if not known and not broken:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        self.wfile.write(json.dumps({"sha": "abc123"}).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[dict[str, str]]:
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": "/nonexistent"}
    server.shutdown()
    server.server_close()


def test_the_hub_is_used_when_it_answers_and_its_commit_is_pinned(hub: dict[str, str], folder: Path) -> None:
    chosen = dataset.choose(HUB, {**hub, "BOUQUET_DATASET_FALLBACK": str(folder)})
    assert (chosen.name, chosen.source, chosen.revision) == (HUB, "hub", "abc123")
    assert chosen.fingerprint() == f"{HUB}@abc123"


def test_a_name_that_is_not_on_the_hub_is_an_error(hub: dict[str, str], folder: Path) -> None:
    with pytest.raises(SettingError, match=r"^dataset=no/such: .*hub has no such dataset.*--run-config"):
        dataset.choose("no/such", {**hub, "BOUQUET_DATASET_FALLBACK": str(folder)})


def test_the_sample_is_used_when_the_hub_does_not_answer(folder: Path) -> None:
    chosen = dataset.choose(HUB, {**OFFLINE, "BOUQUET_DATASET_FALLBACK": str(folder)})
    assert (chosen.name, chosen.source, chosen.folder) == ("sample", "sample", folder)
    assert str(chosen).startswith("sample (sample, ")
    assert "because HF_HUB_OFFLINE is set" in str(chosen)


def test_an_error_from_a_proxy_counts_as_no_answer_from_the_hub(hub: dict[str, str]) -> None:
    with pytest.raises(SettingError, match=r"hub does not answer \(HTTP 503\)"):
        dataset.choose("some/broken", hub)


def test_the_sample_replaces_only_cifar10(folder: Path) -> None:
    with pytest.raises(SettingError, match="^dataset=other/data: is not a folder here"):
        dataset.choose("other/data", {**OFFLINE, "BOUQUET_DATASET_FALLBACK": str(folder)})


def test_without_hub_and_fallback_the_hint_is_to_give_a_folder() -> None:
    refused = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": "/nonexistent"}
    with pytest.raises(SettingError) as raised:
        dataset.choose(HUB, refused)
    assert "hub does not answer" in str(raised.value)
    assert str(raised.value).endswith("""--run-config 'dataset="/path/to/folder"'""")


def test_a_dataset_in_the_hub_clients_cache_is_used_without_the_hub(tmp_path: Path) -> None:
    cached = tmp_path / "hub" / "datasets--uoft-cs--cifar10"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("def456")
    (cached / "snapshots" / "def456").mkdir(parents=True)
    chosen = dataset.choose(HUB, {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
    assert (chosen.source, chosen.revision) == ("hub", "def456")


def test_a_folder_in_the_run_config_is_used(folder: Path) -> None:
    assert dataset.choose(str(folder), OFFLINE).name == str(folder)


def test_the_environments_path_takes_precedence_over_the_run_config(folder: Path, make_folder: MakeFolder) -> None:
    other = make_folder(train=10, test=0)
    assert dataset.choose(str(folder), {"BOUQUET_DATASET": str(other)}).folder == other


@pytest.mark.parametrize("path", ["/no/such/folder", "./no-such", "~/no-such-folder-here"])
def test_a_missing_folder_is_an_error_that_names_it(path: str) -> None:
    with pytest.raises(SettingError, match="no such folder") as raised:
        dataset.choose(path, OFFLINE)
    assert str(raised.value).startswith(f"dataset={path}: ")


def test_a_missing_folder_from_the_environment_is_named_with_its_variable() -> None:
    with pytest.raises(SettingError, match="^BOUQUET_DATASET=/no/such: no such folder"):
        dataset.choose(HUB, {"BOUQUET_DATASET": "/no/such"})


def test_a_nodes_own_path_takes_precedence(folder: Path) -> None:
    assert dataset.on_node(HUB, "abc", str(folder), {}).folder == folder


def test_a_node_finds_the_sample_through_its_own_environment(folder: Path) -> None:
    assert dataset.on_node("sample", "", None, {"BOUQUET_DATASET_FALLBACK": str(folder)}).folder == folder
    with pytest.raises(SettingError, match="BOUQUET_DATASET_FALLBACK"):
        dataset.on_node("sample", "", None, {})


def test_a_folder_missing_on_a_node_is_an_error() -> None:
    with pytest.raises(SettingError, match="^dataset=/no/such: no such folder"):
        dataset.on_node("/no/such", "", None, {})


def test_a_node_reads_the_commit_that_the_serverapp_pinned() -> None:
    assert dataset.on_node(HUB, "abc123", None, {}) == Dataset(HUB, "hub", "abc123")


def test_missing_columns_are_named(make_folder: MakeFolder) -> None:
    wrong = dataset.choose(str(make_folder(train=10, test=0, img="image")), OFFLINE)
    with pytest.raises(SettingError, match="has no column img, only image, label"):
        dataset.check(wrong, num_partitions=2, test_split=False)


def test_fewer_images_than_the_nodes_need_is_an_error(make_folder: MakeFolder) -> None:
    small = dataset.choose(str(make_folder(train=9, test=0)), OFFLINE)
    with pytest.raises(SettingError, match="9 train images for 10 nodes"):
        dataset.check(small, num_partitions=10, test_split=False)


def test_central_evaluation_needs_a_test_split(make_folder: MakeFolder) -> None:
    no_test = dataset.choose(str(make_folder(train=10, test=0)), OFFLINE)
    dataset.check(no_test, num_partitions=2, test_split=False)
    with pytest.raises(SettingError, match=r"no test-\*\.parquet"):
        dataset.check(no_test, num_partitions=2, test_split=True)


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-0.parquet").write_text("not parquet")
    with pytest.raises(SettingError, match=r"train-0\.parquet cannot be read") as raised:
        dataset.check(dataset.choose(str(tmp_path), OFFLINE), num_partitions=1, test_split=False)
    assert "\n" not in str(raised.value)


def test_a_folders_fingerprint_changes_with_its_files(make_folder: MakeFolder) -> None:
    source = dataset.choose(str(make_folder(train=10, test=0)), OFFLINE)
    before = source.fingerprint()
    assert source.fingerprint() == before
    assert source.folder is not None
    os.utime(source.folder / "README.md", ns=(1, 1))
    assert source.fingerprint() != before
