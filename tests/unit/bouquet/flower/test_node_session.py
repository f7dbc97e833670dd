"""When a SuperNode tells that a run has ended."""

import threading
import time

import pytest
from flwr.supercore.run import Run, RunNotRunningException

from bouquet.flower import node_session
from bouquet.flower.fleet_client import SuperLinkUnreachableError
from bouquet.flower.node_session import NodeSession
from bouquet.polling import poll_until


@pytest.mark.parametrize("end", [RunNotRunningException(), SuperLinkUnreachableError("UNAVAILABLE")])
def test_the_end_of_a_run_is_told_once(end: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_session, "RUN_POLL_SECONDS", 0.05)
    session, ended = NodeSession(), threading.Event()
    told: list[int] = []
    session.on_run_ended = told.append

    def get_run(run_id: int) -> Run:
        if ended.is_set():
            raise end
        return Run.create_empty(run_id)

    session.watch_run(5, get_run)
    session.watch_run(5, get_run)
    time.sleep(0.2)
    assert told == []
    ended.set()
    assert poll_until(lambda: told, 10, 0.05)
    time.sleep(0.2)
    assert told == [5]
