import ast
import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest
from flwr.common.constant import Status
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.corestate.in_memory_corestate import InMemoryCoreState
from flwr.superlink.federation import NoOpFederationManager

from deploy.flower.database import MESSAGES, OBJECTS, LinkState, Memo, Objects
from deploy.flower.spool import Spool


def open_state(path: Path) -> LinkState:
    LinkState.spool = Objects.spool = Spool(path.parent / "spool")
    state = LinkState(str(path), NoOpFederationManager(), Objects(str(path)))
    state.initialize()
    return state


@pytest.fixture
def state(tmp_path: Path) -> LinkState:
    return open_state(tmp_path / "superlink.db")


class Asked:
    """Counts how often it is asked."""

    def __init__(self, answer: Any = "answer") -> None:
        self.times = 0
        self.answer = answer

    def __call__(self) -> Any:
        self.times += 1
        return self.answer


def test_an_answer_holds_until_something_changes() -> None:
    memo, asked = Memo(), Asked()
    assert [memo.get("key", asked), memo.get("key", asked), asked.times] == ["answer", "answer", 1]
    memo.clear()
    memo.get("key", asked)
    assert asked.times == 2


def test_an_answer_holds_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.flower.database.FRESH", -1)
    memo, asked = Memo(), Asked()
    memo.get("key", asked)
    memo.get("key", asked)
    assert asked.times == 2


def test_no_answer_is_asked_for_again() -> None:
    memo, asked = Memo(), Asked(None)
    memo.get("key", asked)
    memo.get("key", asked)
    assert asked.times == 2


def test_an_answer_that_changed_while_it_was_asked_for_is_not_kept() -> None:
    memo, asked = Memo(), Asked()

    def overtaken() -> str:
        memo.clear()
        return "stale"

    assert memo.get("key", overtaken) == "stale"
    assert memo.get("key", asked) == "answer"


def test_nodes_outlive_the_superlink(tmp_path: Path) -> None:
    first = open_state(tmp_path / "superlink.db")
    node_id = first.create_node("owner", "name", b"key", 30)
    second = open_state(tmp_path / "superlink.db")
    assert second.get_node_id_by_public_key(b"key") == node_id
    assert set(second.nodes) == {node_id}


def test_a_node_that_was_removed_is_unknown_at_once(state: LinkState) -> None:
    node_id = state.create_node("owner", "name", b"key", 30)
    state.activate_node(node_id, 30)
    assert state.get_node_id_by_public_key(b"key") == node_id
    state.delete_node("owner", node_id)
    assert state.get_node_id_by_public_key(b"key") is None


def test_a_token_is_worth_nothing_once_its_task_has_ended(state: LinkState) -> None:
    task_id = state.create_task("flwr-serverapp", run_id=1, fab_hash="0")
    assert task_id is not None
    token = state.claim_task(task_id)
    assert token is not None
    task = state.get_task_by_token(token)
    assert task is not None
    assert task.status.status == Status.STARTING
    assert state.finish_task(task_id, "failed", "for the test")
    assert state.get_task_by_token(token) is None


@pytest.mark.parametrize(
    ("source", "name"),
    [(InMemoryLinkState, name) for name in MESSAGES] + [(InMemoryCoreState, name) for name in OBJECTS],
)
def test_a_borrowed_method_finds_all_that_it_uses(state: LinkState, source: type, name: str) -> None:
    method = getattr(LinkState, name)
    assert method is getattr(source, name) or method.__module__ == LinkState.__module__, "neither borrowed nor extended"
    tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(source, name))))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    missing = {attribute for attribute in used if not hasattr(state, attribute)}
    assert not missing, f"{source.__name__}.{name} now uses {missing}: mend database.py: LinkState"


def test_the_database_sees_no_message_and_no_object(state: LinkState) -> None:
    session = state.start_session(1)
    assert state.store_object(1, session, "0" * 64, b"") is False
    assert state.query("SELECT count(*) AS n FROM object_push_sessions") == [{"n": 0}]
