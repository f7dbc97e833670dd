"""The size of the cache of partitions, and how to empty it."""

from pathlib import Path

import numpy as np

from app import array_cache
from bouquet.host.checks.partition_cache import MIB, cache_of_containers, cache_of_processes
from bouquet.settings.host import HostSettings
from tests.unit.bouquet.conftest import Install


def fill(folder: Path) -> None:
    """Store an entry of 512 MiB, without its bytes on the disk, and a file that is not the cache's."""
    array_cache.load_or_make(folder, ("key",), lambda: {"images": np.zeros(1, np.uint8)})
    [entry] = folder.iterdir()
    with entry.open("r+b") as file:
        file.truncate(512 * MIB)
    (folder / "huggingface").mkdir()
    (folder / "huggingface" / "file").write_bytes(bytes(2 * MIB))


def test_processes_have_it_in_their_home(tmp_path: Path) -> None:
    settings = HostSettings.read({"BOUQUET_HOME": str(tmp_path)})
    cache = tmp_path / "processes" / "cache"
    assert cache_of_processes(settings).startswith(f"0.00 GiB, at most 5 GiB (PARTITION_CACHE_GIB) in {cache}; ")
    fill(cache)
    assert cache_of_processes(settings) == (
        f"0.50 GiB, at most 5 GiB (PARTITION_CACHE_GIB) in {cache}; to empty it: rm -r '{cache}'"
    )
    unlimited = HostSettings.read({"BOUQUET_HOME": str(tmp_path), "PARTITION_CACHE_GIB": "0"})
    assert "0.50 GiB, no limit (PARTITION_CACHE_GIB=0)" in cache_of_processes(unlimited)


def test_the_superlinks_container_measures_the_volume(install: Install, tmp_path: Path) -> None:
    answers = 'volume) echo mine_cache;; ps) echo 4711;; exec) echo "1536 /var/lib/bouquet/cache";;'
    install(docker=f'case "$1" in {answers} esac')
    assert cache_of_containers(HostSettings.read({"COMPOSE_PROJECT_NAME": "mine"})) == (
        "1.50 GiB, at most 5 GiB (PARTITION_CACHE_GIB) in the volume mine_cache; "
        "to empty it: make down; docker volume rm mine_cache"
    )
    assert "label=com.docker.compose.project=mine" in (tmp_path / "calls").read_text()


def test_without_a_container_the_volume_is_measured_where_this_user_may_read_it(
    install: Install, tmp_path: Path
) -> None:
    folder = tmp_path / "volume"
    fill(folder)
    install(docker=f'case "$2" in ls) echo mine_cache;; inspect) echo {folder};; esac')
    assert cache_of_containers(HostSettings.read({"COMPOSE_PROJECT_NAME": "mine"})).startswith(
        "0.50 GiB, at most 5 GiB"
    )
    install(docker=f'case "$2" in ls) echo mine_cache;; inspect) echo {tmp_path}/hidden;; esac')
    assert "known only while the fleet is up" in cache_of_containers(
        HostSettings.read({"COMPOSE_PROJECT_NAME": "mine"})
    )


def test_before_the_first_start_there_is_no_volume(install: Install) -> None:
    install(docker="exit 0")
    assert cache_of_containers(HostSettings.read({"COMPOSE_PROJECT_NAME": "mine"})).startswith("empty: ")
