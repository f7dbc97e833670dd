from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from datasets import load_dataset

from app import dataset
from app.dataset import Dataset, choose, on_node
from app.run_config import SettingError

from .conftest import MakeFolder

HUB = "uoft-cs/cifar10"


class _Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path == f"/api/datasets/{HUB}"
        broken = self.path.endswith("/broken")
        self.send_response(200 if known else 503 if broken else 401)
        if not known and not broken:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        self.wfile.write(json.dumps({"id": HUB, "sha": "abc123"}).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def go_online(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    go_online(monkeypatch, server.server_port)
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def sample(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOUQUET_DATASET_FALLBACK", str(folder))
    return folder


@pytest.mark.usefixtures("hub")
def test_the_hub_is_used_when_it_answers_and_its_commit_is_pinned() -> None:
    chosen = choose(HUB)
    assert (chosen.name, chosen.revision, chosen.folder, chosen.note) == (HUB, "abc123", None, "hub")


@pytest.mark.usefixtures("hub")
def test_a_name_that_is_not_on_the_hub_is_an_error() -> None:
    with pytest.raises(SettingError, match=r"^dataset=no/such: .*hub has no such dataset.*--run-config"):
        choose("no/such")


def test_the_sample_is_used_when_the_hub_does_not_answer(sample: Path) -> None:
    chosen = choose(HUB)
    assert (chosen.name, chosen.folder) == ("sample", sample)
    assert "because HF_HUB_OFFLINE is set" in chosen.note


@pytest.mark.usefixtures("hub")
def test_an_error_from_a_proxy_counts_as_no_answer_from_the_hub() -> None:
    with pytest.raises(SettingError, match=r"hub does not answer \(.*503.*\)") as raised:
        choose("some/broken")
    assert "\n" not in str(raised.value)


def test_the_sample_replaces_only_cifar10() -> None:
    with pytest.raises(SettingError, match="^dataset=other/data: is not a folder here"):
        choose("other/data")


def test_without_hub_and_fallback_the_hint_is_to_give_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BOUQUET_DATASET_FALLBACK")
    go_online(monkeypatch, 9)
    with pytest.raises(SettingError) as raised:
        choose(HUB)
    assert "hub does not answer" in str(raised.value)
    assert str(raised.value).endswith("""--run-config 'dataset="/path/to/folder"'""")


def test_a_hub_that_is_silent_is_given_up_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(dataset, "PROBE_SECONDS", 0.01)
    wait = threading.Event()
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: wait.wait(20))
    assert "the hub does not answer (TimeoutError)" in choose(HUB).note
    wait.set()


def test_a_dataset_in_the_local_cache_is_used_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = tmp_path / "datasets" / "uoft-cs___cifar10" / "plain_text" / "0.0.0" / "def456"
    entry.mkdir(parents=True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert choose(HUB).name == "sample"  # unfinished
    (entry / "dataset_info.json").touch()
    chosen = choose(HUB)
    assert (chosen.name, chosen.revision) == (HUB, "def456")
    assert chosen.note == "from the local cache, because HF_HUB_OFFLINE is set"


def test_a_folder_in_the_run_config_is_used(folder: Path) -> None:
    assert choose(str(folder)).name == str(folder)


def test_the_environments_path_takes_precedence_over_the_run_config(
    folder: Path, make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_folder(train=10, test=0)
    monkeypatch.setenv("BOUQUET_DATASET", str(other))
    assert choose(str(folder)).folder == other


@pytest.mark.parametrize("path", ["/no/such/folder", "./no-such", "~/no-such-folder-here"])
def test_a_missing_folder_is_an_error_that_names_it(path: str) -> None:
    with pytest.raises(SettingError, match="no such folder") as raised:
        choose(path)
    assert str(raised.value).startswith(f"dataset={path}: ")


def test_a_missing_folder_from_the_environment_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUQUET_DATASET", "/no/such")
    with pytest.raises(SettingError, match="^BOUQUET_DATASET=/no/such: no such folder"):
        choose(HUB)


def test_a_nodes_own_path_takes_precedence(folder: Path) -> None:
    assert on_node(HUB, "abc", str(folder)).folder == folder


def test_a_node_finds_the_sample_through_its_own_environment(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_node("sample", "", None).folder == sample
    monkeypatch.delenv("BOUQUET_DATASET_FALLBACK")
    with pytest.raises(SettingError, match="BOUQUET_DATASET_FALLBACK=: no such folder"):
        on_node("sample", "", None)


def test_a_folder_missing_on_a_node_is_an_error() -> None:
    with pytest.raises(SettingError, match="^dataset=/no/such: no such folder"):
        on_node("/no/such", "", None)


def test_a_node_reads_the_commit_that_the_serverapp_pinned() -> None:
    assert on_node(HUB, "abc123", None) == Dataset(HUB, "abc123")


def test_a_folders_revision_changes_with_its_files(make_folder: MakeFolder) -> None:
    folder = make_folder(train=10, test=0)
    before = choose(str(folder)).revision
    assert choose(str(folder)).revision == before
    os.utime(folder / "README.md", ns=(1, 1))
    assert choose(str(folder)).revision != before


def test_only_the_splits_that_a_folder_has_are_read(make_folder: MakeFolder) -> None:
    for test, splits in ((0, {"train"}), (10, {"train", "test"})):
        folder = make_folder(train=10, test=test)
        assert set(load_dataset("parquet", data_files=choose(str(folder)).files(folder))) == splits
