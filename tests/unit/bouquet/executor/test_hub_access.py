"""A hub that cannot be reached is asked once; what is in the cache loads, and what is not is named in one line.

Each test is a process of its own, as a worker is: the libraries read the environment when they are imported.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hub_stub import make_parquet, serve_hub

NOWHERE = "http://127.0.0.1:9"
"""Nothing listens there."""
LOAD = """
import datasets
print(datasets.load_dataset("some/data", split="train").num_rows)
"""


def execute(code: str, home: Path, **environment: str) -> tuple[str, float]:
    """Run code in a process of its own; return its last line and the seconds that it took."""
    ours = ("HF_", "BOUQUET_", "HTTP", "ALL_PROXY")
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(ours)}
    watched = f"from bouquet.executor import hub_access\nhub_access.watch()\n{code}"
    start = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", watched],
        env={**inherited, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
    )
    return (ended.stderr + ended.stdout).strip().splitlines()[-1], time.monotonic() - start


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that was filled from a hub."""
    home = tmp_path_factory.mktemp("filled")
    with serve_hub("some/data", {"data/train-0.parquet": make_parquet(home)}) as hub:
        assert execute(LOAD, home, HF_ENDPOINT=hub)[0] == "8"
    return home


def test_without_the_hub_a_cached_dataset_loads_at_once(filled: Path) -> None:
    answer, seconds = execute(LOAD, filled, HF_ENDPOINT=NOWHERE)
    assert answer == "8"
    assert seconds < 15  # the libraries alone pause for 23 s


def test_without_the_hub_a_missing_dataset_is_named_at_once_with_setting_and_command(tmp_path: Path) -> None:
    answer, seconds = execute(LOAD, tmp_path, HF_ENDPOINT=NOWHERE)
    assert answer == (
        "bouquet.executor.hub_access.DatasetUnavailableError: dataset some/data: 127.0.0.1 cannot be reached "
        "([Errno 111] Connection refused); HF_CACHE is not set; fill a cache where the hub answers: "
        "bouquet dataset some/data; then set HF_CACHE to its folder"
    )
    assert seconds < 15


def test_the_error_says_that_the_brought_cache_does_not_have_it(filled: Path) -> None:
    code = LOAD.replace("some/data", "another/one")
    answer, _ = execute(code, filled, HF_ENDPOINT=NOWHERE, BOUQUET_HF_CACHE="/hf-cache")
    assert "dataset another/one: " in answer
    assert "the cache in HF_CACHE does not have it; " in answer


def test_offline_mode_of_the_user_is_named(tmp_path: Path) -> None:
    answer, _ = execute(LOAD, tmp_path, HF_HUB_OFFLINE="1")
    assert "dataset some/data: HF_HUB_OFFLINE=1; HF_CACHE is not set" in answer


def test_a_name_server_that_does_not_answer_ends_the_attempt(tmp_path: Path) -> None:
    silent = "import socket, threading\nsocket.getaddrinfo = lambda *arguments: threading.Event().wait()\n"
    limit = "hub_access.CONNECT_SECONDS = 0.1\n"
    answer, seconds = execute(silent + limit + LOAD, tmp_path, HF_ENDPOINT="http://hub.example")
    assert "dataset some/data: hub.example cannot be reached (no name server answers within 0.1 s); " in answer
    assert seconds < 15


def test_behind_a_proxy_no_name_is_looked_up(tmp_path: Path) -> None:
    code = """
looked_up = []
hub_access.socket.getaddrinfo = lambda *arguments: looked_up.append(arguments[0])
hub_access._wait_for_name('hub.example')
print(looked_up)
"""
    assert execute(code, tmp_path, https_proxy="http://127.0.0.1:9")[0] == "[]"
    assert execute(code, tmp_path)[0] == "['hub.example']"


def test_an_app_that_expects_the_error_of_the_library_still_catches_it(tmp_path: Path) -> None:
    code = f"import datasets\ntry:{LOAD.replace(chr(10), chr(10) + '  ')}\nexcept ConnectionError:\n  print('caught')"
    assert execute(code, tmp_path, HF_ENDPOINT=NOWHERE)[0] == "caught"


def test_a_file_of_a_model_fails_at_once_too(tmp_path: Path) -> None:
    code = "import huggingface_hub\nhuggingface_hub.hf_hub_download('some/model', 'config.json')"
    answer, seconds = execute(code, tmp_path, HF_ENDPOINT=NOWHERE)
    assert "LocalEntryNotFoundError" in answer
    assert seconds < 15


def test_a_hub_that_has_answered_is_asked_again_after_a_failed_connection(tmp_path: Path) -> None:
    code = f"""
import os, httpx, huggingface_hub
from huggingface_hub import get_session
session = get_session()
print(session.get(os.environ["HF_ENDPOINT"] + "/api/datasets/some/data").status_code)
try:
    session.get("{NOWHERE}")
except httpx.ConnectError:
    print(huggingface_hub.constants.HF_HUB_OFFLINE)
"""
    with serve_hub("some/data", {}) as hub:
        assert execute(code, tmp_path, HF_ENDPOINT=hub)[0] == "False"


def test_a_dataset_that_the_hub_does_not_have_is_the_librarys_error(tmp_path: Path) -> None:
    with serve_hub("other/data", {}) as hub:
        assert "Dataset 'some/data' doesn't exist on the Hub" in execute(LOAD, tmp_path, HF_ENDPOINT=hub)[0]


def test_an_app_that_does_not_use_the_hub_imports_nothing_for_it(tmp_path: Path) -> None:
    code = "import sys, json\nprint({'huggingface_hub', 'httpx', 'datasets'} & set(sys.modules))"
    assert execute(code, tmp_path)[0] == "set()"


def test_modules_keep_their_own_loaders(tmp_path: Path) -> None:
    code = "import datasets.load, inspect\nprint('dataset_module_factory' in inspect.getsource(datasets.load))"
    assert execute(code, tmp_path)[0] == "True"
