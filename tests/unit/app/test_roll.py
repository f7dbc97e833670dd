"""Who takes part in a run while the fleet changes around it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Context, Message

from app import client_app, roll
from app.errors import FleetError
from app.roll import PlacesOnly, Roll

from .fake_grid import FIRST_NODE, FakeGrid


@pytest.fixture
def grid() -> FakeGrid:
    """Three nodes, which hold the partitions of a run that begins now."""
    return FakeGrid(client_app.app, 3, {}, {})


@pytest.fixture
def at_start(grid: FakeGrid) -> Roll:
    begun = Roll(grid.get_node_ids(), 3)
    begun.partition_ids |= {FIRST_NODE + k: k for k in range(3)}
    return begun


def told(of: Roll) -> list[tuple[Any, ...]]:
    return [(c["round"], c["what"], c["partition-id"], c["takes-part"]) for c in of.changes]


def test_while_nothing_changes_all_take_part_and_nothing_is_said(grid: FakeGrid, at_start: Roll) -> None:
    assert at_start.call(grid, 1, 1) == [FIRST_NODE, FIRST_NODE + 1, FIRST_NODE + 2]
    assert at_start.changes == []


def test_a_node_that_goes_is_named_once_and_one_that_is_back_takes_part_again(grid: FakeGrid, at_start: Roll) -> None:
    gone = grid.contexts.pop(FIRST_NODE + 1)
    assert at_start.call(grid, 2, 1) == at_start.call(grid, 2, 1) == [FIRST_NODE, FIRST_NODE + 2]
    grid.contexts[FIRST_NODE + 1] = gone
    assert len(at_start.call(grid, 3, 1)) == 3
    assert told(at_start) == [(2, "went", 1, True), (3, "came", 1, True)]


def test_a_newcomer_whose_partition_is_none_of_the_runs_waits_for_the_next_run(grid: FakeGrid, at_start: Roll) -> None:
    grid.add(7, partition_id=3, num_partitions=4)
    for server_round in (1, 2, 3):  # asked at the first, known from the second
        assert 7 not in at_start.call(grid, server_round, 1)
    assert told(at_start) == [(2, "came", 3, False)]
    assert at_start.changes[0]["why"].startswith("this run has partitions 0 to 2")


def test_a_newcomer_that_holds_the_partition_of_one_that_went_takes_its_part(grid: FakeGrid, at_start: Roll) -> None:
    del grid.contexts[FIRST_NODE + 2]
    grid.add(7, partition_id=2, num_partitions=3)
    at_start.call(grid, 1, 1)
    assert 7 in at_start.call(grid, 2, 1)
    assert told(at_start) == [(1, "went", 2, True), (2, "came", 2, True)]


def test_a_newcomer_that_does_not_answer_keeps_nobody_waiting_and_is_asked_again_after_an_error(
    grid: FakeGrid, at_start: Roll
) -> None:
    answers: list[str] = []

    def answer(message: Message, context: Context) -> Message:
        answers.append(message.metadata.message_type)
        if len(answers) == 1:
            raise RuntimeError("not yet")
        return client_app.app(message, context)

    grid.answer = answer
    grid.add(7, partition_id=1, num_partitions=3)
    rounds = [7 in at_start.call(grid, server_round, 1) for server_round in (1, 2, 3)]
    assert rounds == [False, False, True]
    assert answers == ["query.place"] * 2


def test_where_nobody_says_how_many_partitions_there_are_every_newcomer_takes_part(grid: FakeGrid) -> None:
    anyone = Roll(grid.get_node_ids(), None)
    grid.add(7, partition_id=9, num_partitions=10)
    anyone.call(grid, 1, 1)
    assert 7 in anyone.call(grid, 2, 1)


def test_a_fleet_that_is_away_for_a_moment_is_waited_for(
    grid: FakeGrid, at_start: Roll, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roll, "_POLL_SECONDS", 0.001)
    away = dict(grid.contexts)
    grid.contexts.clear()
    looks = 0

    def node_ids() -> Iterable[int]:
        nonlocal looks
        looks += 1
        return list(away) if looks > 3 else []

    monkeypatch.setattr(grid, "get_node_ids", node_ids)
    assert len(at_start.call(grid, 1, 10)) == 3


def test_a_fleet_that_stays_away_ends_the_run_with_the_deadline(grid: FakeGrid, at_start: Roll) -> None:
    grid.contexts.clear()
    with pytest.raises(FleetError, match="^round-deadline=0.01: in round 4 none of the run's SuperNodes was online"):
        at_start.call(grid, 4, 0.01)


def test_a_node_that_has_joined_from_elsewhere_beyond_the_fleets_size_has_a_partition_too(grid: FakeGrid) -> None:
    assert Roll(grid.get_node_ids(), 2).num_partitions == 3


def test_what_strategies_sample_from_is_the_same_list_however_often_they_ask() -> None:
    assert [list(PlacesOnly([1, 2]).get_node_ids()) for _ in range(2)] == [[1, 2], [1, 2]]
