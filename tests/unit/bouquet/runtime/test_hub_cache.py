"""HF_CACHE: its files are linked into HF_HOME, which stays writable; links to another cache disappear."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bouquet.errors import HostError, SettingError
from bouquet.runtime.hub_cache import link

DATASET = "datasets/some___data/default/0.0.0/abc"
SNAPSHOT = "hub/datasets--some--data/snapshots/abc"


def make_cache(folder: Path, commit: str = "abc") -> Path:
    """Return a cache with one dataset, as the libraries lay it out."""
    for name, content in {
        f"{DATASET}/dataset_info.json": "{}",
        f"{DATASET}/data-train.arrow": "rows",
        "datasets/some.lock": "",
        "hub/datasets--some--data/blobs/1": "# data",
        "hub/datasets--some--data/refs/main": commit,
        "hub/.locks/datasets--some--data/1.lock": "",
        "token": "secret",
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (folder / SNAPSHOT).mkdir(parents=True)
    (folder / SNAPSHOT / "README.md").symlink_to("../../blobs/1")
    return folder


def files(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir()}


def test_data_is_linked_and_locks_and_tokens_are_not(tmp_path: Path) -> None:
    cache, home = make_cache(tmp_path / "brought"), tmp_path / "home"
    link(cache, home)
    assert files(home) == {
        ".made-by-bouquet",
        f"{DATASET}/dataset_info.json",
        f"{DATASET}/data-train.arrow",
        "hub/datasets--some--data/blobs/1",
        "hub/datasets--some--data/refs/main",
        f"{SNAPSHOT}/README.md",
    }
    assert (home / DATASET / "data-train.arrow").readlink() == cache / DATASET / "data-train.arrow"
    assert (home / SNAPSHOT / "README.md").read_text() == "# data"


def test_the_commit_is_a_copy_because_the_library_writes_to_it(tmp_path: Path) -> None:
    link(make_cache(tmp_path / "brought"), tmp_path / "home")
    commit = tmp_path / "home" / "hub/datasets--some--data/refs/main"
    assert not commit.is_symlink()
    assert commit.read_text() == "abc"


def test_the_newest_of_two_versions_stays_the_newest(tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "brought")
    os.utime(cache / DATASET, (1_000_000, 1_000_000))
    link(cache, tmp_path / "home")
    assert (tmp_path / "home" / DATASET).stat().st_mtime == 1_000_000


def test_a_second_node_changes_nothing_and_own_files_stay(tmp_path: Path) -> None:
    cache, home = make_cache(tmp_path / "brought"), tmp_path / "home"
    link(cache, home)
    for name in (f"{DATASET}/cache-1.arrow", "hub/datasets--other/blobs/2", "datasets/own.lock"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("own")
    before = files(home)
    link(cache, home)
    assert files(home) == before
    assert (home / DATASET / "cache-1.arrow").read_text() == "own"


@pytest.mark.parametrize("unset", [True, False])
def test_another_cache_takes_the_place_of_the_first_and_of_what_was_computed_from_it(
    tmp_path: Path, unset: bool
) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    link(make_cache(tmp_path / "brought"), home)
    (home / DATASET / "cache-1.arrow").write_text("computed")
    (home / "hub/datasets--some--data/blobs/2").write_text("downloaded")
    (other / "datasets/new___data").mkdir(parents=True)
    (other / "datasets/new___data/info").write_text("new")
    link(None if unset else other, home)
    assert files(home) - {".made-by-bouquet"} == {
        "hub/datasets--some--data/blobs/2",
        "hub/datasets--some--data/refs/main",
        *([] if unset else ["datasets/new___data/info"]),
    }
    assert not (home / DATASET).exists()


def test_a_file_that_the_cache_no_longer_has_is_not_left_as_a_dangling_link(tmp_path: Path) -> None:
    cache, home = make_cache(tmp_path / "brought"), tmp_path / "home"
    link(cache, home)
    (cache / DATASET / "data-train.arrow").rename(cache / DATASET / "data-test.arrow")
    link(cache, home)
    assert {path.name for path in (home / DATASET).iterdir()} == {"dataset_info.json", "data-test.arrow"}


def test_without_the_setting_a_cache_of_the_users_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "home" / DATASET / "own.arrow"
    own.parent.mkdir(parents=True)
    own.symlink_to(tmp_path / "elsewhere")
    link(None, tmp_path / "home")
    link(None, None)
    assert files(tmp_path / "home") == {f"{DATASET}/own.arrow"}


def test_a_folder_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SettingError, match=f"HF_CACHE={tmp_path}: has neither a folder `datasets` nor a folder `hub`; "
    ):
        link(tmp_path, tmp_path / "home")


def test_a_home_that_is_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(HostError, match="its files cannot be linked in .*home .File exists"):
        link(make_cache(tmp_path / "brought"), tmp_path / "home")


def test_ten_nodes_may_start_at_the_same_time(tmp_path: Path) -> None:
    cache, home = make_cache(tmp_path / "brought"), tmp_path / "home"
    for number in range(200):
        (cache / "datasets" / str(number)).write_text("")
    imports = "from pathlib import Path; from bouquet.runtime.hub_cache import link"
    code = f"{imports}; link(Path({str(cache)!r}), Path({str(home)!r}))"
    nodes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(10)]
    assert [node.wait() for node in nodes] == [0] * 10
    assert len(list((home / "datasets").iterdir())) == 201
