"""How the Control API streams the log of a run."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.common.constant import NOOP_FLWR_AID, Status, SubStatus
from flwr.proto.control_pb2 import StreamLogsRequest, StreamLogsResponse
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin

from bouquet.flower import control_servicer
from bouquet.flower.control_servicer import EventControlServicer
from bouquet.flower.superlink_events import LOGS, SuperLinkEvents
from tests.unit.bouquet.flower.fakes import Caller, Traffic, after


class Control:
    """The Control API of a SuperLink with one run, for one account."""

    def __init__(self, folder: Path) -> None:
        self.traffic = Traffic(folder / "superlink.db")
        self.events = SuperLinkEvents()
        self.caller = Caller()
        plugin = NoOpControlAuthnPlugin()
        self.servicer = EventControlServicer(
            self.traffic.states, self.traffic.objects, plugin, None, None, events=self.events
        )
        (task,) = self.traffic.state.get_tasks()
        self.task_id = task.task_id

    def log(self, text: str) -> None:
        """Store log lines, as the ServerApp's PushLogs does."""
        self.traffic.state.add_task_log(self.task_id, text)
        self.events.notifier.notify(LOGS)

    def finish(self) -> None:
        """End the run, as the ServerApp's PushTaskOutput does."""
        self.traffic.state.finish_task(self.task_id, SubStatus.FAILED, "")
        self.events.end_run(self.traffic.run_id)

    def stream(self, run_id: int | None = None, after_timestamp: float = 0.0) -> Iterator[StreamLogsResponse]:
        """Stream the run's log."""
        request = StreamLogsRequest(run_id=run_id or self.traffic.run_id, after_timestamp=after_timestamp)
        return self.servicer.StreamLogs(request, self.caller)


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Control:
    account = AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name="name")
    monkeypatch.setattr(control_servicer, "_get_account", lambda: account)
    monkeypatch.setattr(control_servicer, "LOG_POLL_SECONDS", 30.0)
    return Control(tmp_path)


def test_lines_are_streamed_as_they_come_until_the_run_ends(control: Control) -> None:
    control.log("first\n")
    stream = control.stream()
    assert next(stream).log_output == "first\n"
    start = time.monotonic()
    after(0.1, lambda: control.log("second\n"))
    assert next(stream).log_output == "second\n"
    after(0.1, control.finish)
    assert list(stream) == []
    assert time.monotonic() - start < 10, "the stream waited for its poll, not for a notification"


def test_a_finished_runs_log_is_streamed_to_its_end_and_its_messages_are_deleted(control: Control) -> None:
    control.traffic.send()
    control.log("one\n")
    control.log("two\n")
    control.finish()
    assert "".join(part.log_output for part in control.stream()) == "one\ntwo\n"
    assert control.traffic.state.num_message_ins() == 0
    assert control.traffic.count_files() == 0


def test_lines_that_were_streamed_are_not_streamed_again(control: Control) -> None:
    control.log("first\n")
    latest = next(control.stream()).latest_timestamp
    control.log("second\n")
    control.finish()
    assert "".join(part.log_output for part in control.stream(after_timestamp=latest)) == "second\n"


def test_the_last_lines_of_a_run_that_ends_while_its_log_is_read_are_streamed(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = control.traffic.state
    read = state.get_task_log

    def read_and_finish(*arguments: Any) -> tuple[str, float]:
        monkeypatch.setattr(state, "get_task_log", read)
        before = read(*arguments)
        control.log("last\n")
        control.finish()
        return before

    monkeypatch.setattr(state, "get_task_log", read_and_finish)
    assert "".join(part.log_output for part in control.stream()) == "last\n"


def test_the_silent_end_of_a_run_is_noticed(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_servicer, "LOG_POLL_SECONDS", 0.1)
    after(0.2, lambda: control.traffic.state.finish_task(control.task_id, SubStatus.FAILED, ""))
    assert list(control.stream()) == []
    status = control.traffic.state.get_run_status({control.traffic.run_id})[control.traffic.run_id]
    assert status.status == Status.FINISHED


def test_a_stream_ends_when_its_caller_leaves(control: Control) -> None:
    stream = control.stream()
    control.caller.active = False
    ended = threading.Thread(target=lambda: list(stream))
    ended.start()
    ended.join(10)
    assert not ended.is_alive()


def test_the_log_of_an_unknown_run_is_refused(control: Control) -> None:
    with pytest.raises(FlowerError) as refused:
        next(control.stream(run_id=1))
    assert refused.value.code == ApiErrorCode.RUN_ID_NOT_FOUND


def test_the_log_of_another_federation_is_refused(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = AccountInfo(flwr_aid="stranger", account_name="stranger")
    monkeypatch.setattr(control_servicer, "_get_account", lambda: stranger)
    with pytest.raises(FlowerError) as refused:
        next(control.stream())
    assert refused.value.code == ApiErrorCode.FEDERATION_NOT_FOUND
