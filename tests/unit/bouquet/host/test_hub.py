"""The probe of the dataset hub: whether it answers, and its clock. The requests are real, to a server of the test's."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from huggingface_hub import constants

from bouquet.host.hub import HubAnswer, probe_hub


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off offline mode, which the library reads from the environment at its import."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


requested: list[str] = []
"""The paths of the requests that the server got."""


@pytest.fixture
def late_hub() -> Iterator[str]:
    """A server whose clock is an hour behind."""

    class Late(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            requested.append(self.path)
            self.send_response_only(404 if "missing" in self.path else 200)
            self.send_header("Date", format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True))
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Late) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_the_answer_has_the_difference_of_the_clocks(late_hub: str) -> None:
    answer = probe_hub(url=late_hub)
    assert answer.problem == ""
    assert answer.clock_ahead_seconds == pytest.approx(3600, abs=30)


def test_without_a_url_the_dataset_on_the_librarys_endpoint_is_requested(
    late_hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", late_hub.rstrip("/"))
    requested.clear()
    assert probe_hub().problem == ""
    assert requested == ["/api/datasets/uoft-cs/cifar10"]


def test_a_hub_that_does_not_answer_is_no_error() -> None:
    answer = probe_hub(url="http://127.0.0.1:9/")
    assert answer.problem.startswith("the hub does not answer (")
    assert answer.clock_ahead_seconds is None


def test_an_http_error_is_no_answer(late_hub: str) -> None:
    assert probe_hub(url=f"{late_hub}missing") == HubAnswer("the hub does not answer (404 Not Found)")


def test_offline_mode_forbids_the_request(late_hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    requested.clear()
    assert probe_hub(offline=True, url=late_hub) == HubAnswer("HF_HUB_OFFLINE=1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert probe_hub(url=late_hub) == HubAnswer("huggingface_hub is in offline mode")
    assert requested == []


def test_the_library_is_imported_only_for_the_request() -> None:
    check = (
        "import sys, bouquet.host.command_line; sys.exit('huggingface_hub' in sys.modules or 'httpx' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
