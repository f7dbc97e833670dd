"""The SuperNodes that take part in a run while the fleet changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Context, Message

from app import client_app, fleet
from app.exceptions import FleetError
from app.participants import FixedNodesGrid, Participants

from .fake_grid import FIRST_NODE, FakeGrid


@pytest.fixture
def grid() -> FakeGrid:
    """Three nodes, which hold the partitions of a run that is about to start."""
    return FakeGrid(client_app.app, 3, {}, {})


@pytest.fixture
def participants(grid: FakeGrid) -> Participants:
    three = Participants(grid.get_node_ids(), 3)
    three.partition_ids |= {FIRST_NODE + k: k for k in range(3)}
    return three


def changes(of: Participants) -> list[tuple[Any, ...]]:
    return [(c["round"], c["what"], c["partition-id"], c["takes-part"]) for c in of.changes]


def test_while_nothing_changes_all_take_part_and_nothing_is_recorded(
    grid: FakeGrid, participants: Participants
) -> None:
    assert participants.await_online(grid, 1, 1) == [FIRST_NODE, FIRST_NODE + 1, FIRST_NODE + 2]
    assert participants.changes == []


def test_a_node_that_leaves_is_recorded_once_and_takes_part_again_after_rejoining(
    grid: FakeGrid, participants: Participants
) -> None:
    absent = grid.contexts.pop(FIRST_NODE + 1)
    assert (
        participants.await_online(grid, 2, 1) == participants.await_online(grid, 2, 1) == [FIRST_NODE, FIRST_NODE + 2]
    )
    grid.contexts[FIRST_NODE + 1] = absent
    assert len(participants.await_online(grid, 3, 1)) == 3
    assert changes(participants) == [(2, "left", 1, True), (3, "joined", 1, True)]


def test_a_newcomer_whose_partition_the_run_does_not_have_waits_for_the_next_run(
    grid: FakeGrid, participants: Participants
) -> None:
    grid.add(7, partition_id=3, num_partitions=4)
    for server_round in (1, 2, 3):  # queried in the first, known from the second
        assert 7 not in participants.await_online(grid, server_round, 1)
    assert changes(participants) == [(2, "joined", 3, False)]
    assert participants.changes[0]["why"].startswith("this run has partitions 0 to 2")


def test_a_newcomer_with_the_partition_of_a_node_that_left_takes_part(
    grid: FakeGrid, participants: Participants
) -> None:
    del grid.contexts[FIRST_NODE + 2]
    grid.add(7, partition_id=2, num_partitions=3)
    participants.await_online(grid, 1, 1)
    assert 7 in participants.await_online(grid, 2, 1)
    assert changes(participants) == [(1, "left", 2, True), (2, "joined", 2, True)]


def test_a_newcomer_that_does_not_reply_delays_no_round_and_is_queried_again_after_an_error(
    grid: FakeGrid, participants: Participants
) -> None:
    answers: list[str] = []

    def answer(message: Message, context: Context) -> Message:
        answers.append(message.metadata.message_type)
        if len(answers) == 1:
            raise RuntimeError("not yet")
        return client_app.app(message, context)

    grid.answer = answer
    grid.add(7, partition_id=1, num_partitions=3)
    rounds = [7 in participants.await_online(grid, server_round, 1) for server_round in (1, 2, 3)]
    assert rounds == [False, False, True]
    assert answers == ["query.partition_id"] * 2


def test_without_a_configured_size_every_newcomer_takes_part(grid: FakeGrid) -> None:
    anyone = Participants(grid.get_node_ids(), None)
    grid.add(7, partition_id=9, num_partitions=10)
    anyone.await_online(grid, 1, 1)
    assert 7 in anyone.await_online(grid, 2, 1)


def test_a_round_waits_for_a_fleet_that_is_offline_for_a_moment(
    grid: FakeGrid, participants: Participants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "POLL_SECONDS", 0.001)
    offline = dict(grid.contexts)
    grid.contexts.clear()
    calls = 0

    def node_ids() -> Iterable[int]:
        nonlocal calls
        calls += 1
        return list(offline) if calls > 3 else []

    monkeypatch.setattr(grid, "get_node_ids", node_ids)
    assert len(participants.await_online(grid, 1, 10)) == 3


def test_a_fleet_that_stays_offline_fails_the_run_after_the_deadline(
    grid: FakeGrid, participants: Participants
) -> None:
    grid.contexts.clear()
    with pytest.raises(FleetError, match="^round-deadline=0.01: in round 4 none of the run's SuperNodes was online"):
        participants.await_online(grid, 4, 0.01)


def test_a_node_from_another_machine_beyond_the_fleets_size_has_a_partition_too(grid: FakeGrid) -> None:
    assert Participants(grid.get_node_ids(), 2).num_partitions == 3


def test_the_nodes_that_strategies_sample_from_stay_the_same() -> None:
    assert [list(FixedNodesGrid([1, 2]).get_node_ids()) for _ in range(2)] == [[1, 2], [1, 2]]
