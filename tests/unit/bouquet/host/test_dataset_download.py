"""`bouquet dataset`: fills a cache that loads without the hub; what goes wrong is one line."""

import os
import subprocess
import sys
from pathlib import Path

from bouquet.settings.host import PROJECT
from tests.hub_stub import make_parquet, serve_hub


def bouquet(*arguments: str, **environment: str) -> tuple[int, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "bouquet.host", *arguments],
        env={**inherited, "PYTHONPATH": str(PROJECT / "deploy"), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_what_it_downloads_loads_without_the_hub_and_is_readable_for_all(tmp_path: Path) -> None:
    cache = tmp_path / "brought"
    with serve_hub("some/data", {"data/train-0.parquet": make_parquet(tmp_path)}) as hub:
        code, output = bouquet("dataset", "some/data", HF_CACHE=str(cache), HF_ENDPOINT=hub)
    assert code == 0, output
    assert f"bouquet: downloading some/data to {cache}\n" in output
    assert f"HF_CACHE={cache}\n" in output
    load = "import datasets; print(datasets.load_dataset('some/data', split='train').num_rows)"
    environment = {**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}
    assert subprocess.run([sys.executable, "-c", load], env=environment, capture_output=True).stdout == b"8\n"
    for file in cache.rglob("*.arrow"):
        assert file.stat().st_mode & 0o444 == 0o444


def test_without_the_hub_it_ends_with_one_line(tmp_path: Path) -> None:
    code, output = bouquet("dataset", "some/data", HF_CACHE=str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9")
    assert code == 3
    assert output.splitlines()[-1] == (
        "bouquet: error: dataset some/data: 127.0.0.1 cannot be reached ([Errno 111] Connection refused); "
        "run this command where the hub answers, and bring the folder here"
    )
    assert "Traceback" not in output


def test_a_dataset_that_the_hub_does_not_have_is_one_line(tmp_path: Path) -> None:
    with serve_hub("some/data", {}) as hub:
        code, output = bouquet("dataset", "no/such", HF_CACHE=str(tmp_path), HF_ENDPOINT=hub)
    assert code == 3
    assert "bouquet: error: dataset no/such: Dataset 'no/such' doesn't exist on the Hub" in output.splitlines()[-1]


def test_offline_mode_is_refused(tmp_path: Path) -> None:
    code, output = bouquet("dataset", "some/data", HF_CACHE=str(tmp_path), HF_HUB_OFFLINE="1")
    assert code == 2
    assert "HF_HUB_OFFLINE=1: a dataset comes from the hub; leave HF_HUB_OFFLINE out" in output
