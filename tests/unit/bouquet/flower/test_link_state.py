import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from flwr.common.constant import Status

from bouquet.flower.link_state import AnswerCache, LinkState
from tests.unit.bouquet.flower.fakes import Traffic, open_factories, open_state


@pytest.fixture
def state(tmp_path: Path) -> LinkState:
    return open_state(tmp_path / "superlink.db")


@pytest.fixture
def traffic(tmp_path: Path) -> Traffic:
    return Traffic(tmp_path / "superlink.db")


def test_a_run_whose_server_app_ended_with_its_container_has_failed_with_the_reason(traffic: Traffic) -> None:
    (task,) = traffic.state.get_tasks(statuses=[Status.PENDING])
    traffic.state.claim_task(task.task_id)
    traffic.state.activate_task(task.task_id)
    traffic.state.fail_running_tasks("the reason")
    status = traffic.state.get_run_status({traffic.run_id})[traffic.run_id]
    assert (status.status, status.sub_status, status.details) == ("finished", "failed", "the reason")


class Asked:
    """Counts how often it is asked."""

    def __init__(self, answer: Any = "answer") -> None:
        self.times = 0
        self.answer = answer

    def __call__(self) -> Any:
        self.times += 1
        return self.answer


def test_an_answer_is_valid_until_something_changes() -> None:
    cache, asked = AnswerCache(), Asked()
    assert [cache.get("key", asked), cache.get("key", asked), asked.times] == ["answer", "answer", 1]
    cache.clear()
    cache.get("key", asked)
    assert asked.times == 2


def test_an_answer_is_valid_for_a_limited_time() -> None:
    cache, asked = AnswerCache(-1), Asked()
    cache.get("key", asked)
    cache.get("key", asked)
    assert asked.times == 2


def test_an_answer_of_none_is_not_kept() -> None:
    cache, asked = AnswerCache(), Asked(None)
    cache.get("key", asked)
    cache.get("key", asked)
    assert asked.times == 2


def test_an_answer_that_changed_while_it_was_asked_for_is_not_kept() -> None:
    cache, asked = AnswerCache(), Asked()

    def overtaken() -> str:
        cache.clear()
        return "stale"

    assert cache.get("key", overtaken) == "stale"
    assert cache.get("key", asked) == "answer"


def test_one_thread_asks_and_the_others_get_its_answer() -> None:
    cache, asked, start = AnswerCache(), Asked(), Barrier(8)

    def ask_slowly() -> Any:
        time.sleep(0.05)
        return asked()

    def get(_: int) -> Any:
        start.wait()
        return cache.get("key", ask_slowly)

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(get, range(8))) == {"answer"}
    assert asked.times == 1


def test_a_run_shows_all_bytes_and_seconds_that_were_counted_once_it_has_ended(traffic: Traffic) -> None:
    state, run_id = traffic.state, traffic.run_id
    for _ in range(3):
        state.store_traffic(run_id, bytes_sent=10, bytes_recv=1)
        state.add_clientapp_runtime(run_id, 0.5)
    (task,) = state.get_tasks(statuses=[Status.PENDING])
    state.get_run_info(run_ids=[run_id])
    state.finish_task(task.task_id, "completed", "")
    (run,) = state.get_run_info(run_ids=[run_id])
    assert (run.bytes_sent, run.bytes_recv, run.clientapp_runtime) == (30, 3, 1.5)


def test_a_run_that_does_not_exist_yet_is_asked_for_again(traffic: Traffic) -> None:
    assert list(traffic.state.get_run_info(run_ids=[1])) == []
    assert [run.run_id for run in traffic.state.get_run_info(run_ids=[traffic.run_id])] == [traffic.run_id]


def test_nodes_survive_a_restart(tmp_path: Path) -> None:
    first = open_state(tmp_path / "superlink.db")
    node_id = first.create_node("owner", "name", b"key", 30)
    second = open_state(tmp_path / "superlink.db")
    assert second.get_node_id_by_public_key(b"key") == node_id
    assert set(second.nodes_by_id()) == {node_id}


def test_a_node_that_was_removed_is_unknown_at_once(state: LinkState) -> None:
    node_id = state.create_node("owner", "name", b"key", 30)
    state.activate_node(node_id, 30)
    assert state.get_node_id_by_public_key(b"key") == node_id
    state.delete_node("owner", node_id)
    assert state.get_node_id_by_public_key(b"key") is None


def test_a_token_is_invalid_once_its_task_has_ended(state: LinkState) -> None:
    task_id = state.create_task("flwr-serverapp", run_id=1, fab_hash="0")
    assert task_id is not None
    token = state.claim_task(task_id)
    assert token is not None
    task = state.get_task_by_token(token)
    assert task is not None
    assert task.status.status == Status.STARTING
    assert state.finish_task(task_id, "failed", "for the test")
    assert state.get_task_by_token(token) is None


DELEGATED = {
    "store_message_ins": ["message"],
    "store_message_res": ["message"],
    "store_message_and_object_tree": ["message", "object_tree", "session_id"],
    "get_message_ins": ["node_id", "limit"],
    "get_message_res": ["message_ids"],
    "get_message_ids_from_run_id": ["run_id"],
    "delete_messages": ["message_ins_ids"],
    "num_message_ins": [],
    "num_message_res": [],
    "start_session": ["run_id"],
    "delete_sessions_in_run": ["run_id"],
    "preregister_object_tree": ["object_tree", "session_id"],
    "store_object": ["run_id", "session_id", "object_id", "object_content"],
    "get_object": ["run_id", "object_id"],
}


@pytest.mark.parametrize("name", DELEGATED)
def test_messages_and_objects_are_those_of_the_message_state(
    name: str, state: LinkState, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    def record(*arguments: Any) -> str:
        calls.append(arguments)
        return "result"

    monkeypatch.setattr(state.messages, name, record)
    result = getattr(state, name)(**{parameter: parameter for parameter in DELEGATED[name]})
    assert calls == [tuple(DELEGATED[name])]
    assert result == (None if name.startswith("delete") else "result")


def test_the_database_sees_no_message_and_no_object(state: LinkState) -> None:
    session = state.start_session(1)
    assert state.store_object(1, session, "0" * 64, b"") is False
    assert state.query("SELECT count(*) AS n FROM object_push_sessions") == [{"n": 0}]


def test_a_factory_returns_one_instance(tmp_path: Path) -> None:
    states, objects = open_factories(tmp_path / "superlink.db")
    with ThreadPoolExecutor(8) as pool:
        found = {id(future.result()) for future in [pool.submit(states.state) for _ in range(16)]}
    assert found == {id(states.state())}
    assert objects.store() is states.state().object_store is objects.store()
    assert states.objectstore_factory is objects


def test_the_federation_manager_asks_the_database(state: LinkState) -> None:
    assert state.federation_manager.linkstate is state


def test_a_factory_tries_again_when_the_first_try_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states, _ = open_factories(tmp_path / "superlink.db")
    with monkeypatch.context() as broken, pytest.raises(OSError, match="broken"):
        broken.setattr(LinkState, "initialize", raise_os_error)
        states.state()
    assert states.state().get_node_info() == []


def raise_os_error(*arguments: Any) -> None:
    raise OSError("broken")
