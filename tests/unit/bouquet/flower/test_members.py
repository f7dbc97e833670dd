"""The SuperNodes that take part in a run while the fleet changes."""

import logging
from typing import Any

import pytest

from bouquet.flower.members import Members

FIRST = 100
THREE = [FIRST, FIRST + 1, FIRST + 2]


class Fleet:
    """A run that has started with three nodes."""

    def __init__(self, size: int | None = 3) -> None:
        self.partition_ids = {node_id: node_id - FIRST for node_id in THREE}
        self.members = Members(lambda: self.partition_ids)
        self.members.start(THREE, size)

    def changes(self) -> list[tuple[Any, ...]]:
        return [(c["what"], c["partition-id"], c["takes-part"]) for c in self.members.changes]


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_while_nothing_changes_all_take_part_and_nothing_is_recorded(fleet: Fleet) -> None:
    assert fleet.members.update(THREE) == THREE
    assert fleet.members.changes == []
    assert (fleet.members.at_start, fleet.members.num_partitions) == (3, 3)


def test_a_node_that_leaves_is_recorded_once_and_takes_part_again_after_rejoining(fleet: Fleet) -> None:
    two = [FIRST, FIRST + 2]
    assert fleet.members.update(two) == fleet.members.update(two) == two
    assert fleet.members.update(THREE) == THREE
    assert fleet.changes() == [("left", 1, True), ("joined", 1, True)]


def test_a_newcomer_whose_partition_the_run_does_not_have_waits_for_the_next_run(fleet: Fleet) -> None:
    fleet.partition_ids[7] = 3
    for _ in range(2):
        assert fleet.members.update([*THREE, 7]) == THREE
    assert fleet.changes() == [("joined", 3, False)]
    assert fleet.members.changes[0]["why"].startswith("this run has partitions 0 to 2, so it takes part from the next")


def test_a_newcomer_with_the_partition_of_a_node_that_left_takes_part_at_once(fleet: Fleet) -> None:
    fleet.partition_ids[107] = 2
    assert fleet.members.update([FIRST, FIRST + 1, 107]) == [FIRST, FIRST + 1, 107]
    assert fleet.changes() == [("left", 2, True), ("joined", 2, True)]


def test_a_newcomer_that_does_not_report_its_partition_waits_for_the_next_run(fleet: Fleet) -> None:
    assert fleet.members.update([*THREE, 7]) == THREE
    assert fleet.members.changes[0]["why"].startswith("it has not reported its partition-id")


def test_a_node_that_does_not_report_its_partition_takes_part_from_the_start() -> None:
    members = Members(dict)
    members.start(THREE, 3)
    assert members.update(THREE) == THREE
    assert members.partition(FIRST) == "partition-id unknown"


def test_without_a_configured_size_every_newcomer_takes_part() -> None:
    fleet = Fleet(size=None)
    assert fleet.members.update([*THREE, 107]) == [*THREE, 107]
    assert fleet.members.num_partitions is None


def test_a_node_beyond_the_fleets_size_has_a_partition_too() -> None:
    fleet = Fleet(size=2)
    assert (fleet.members.num_partitions, fleet.members.update(THREE)) == (3, THREE)


def test_a_node_whose_partition_the_run_does_not_have_does_not_take_part_from_the_start_either() -> None:
    members = Members(lambda: {100: 0, 101: 1, 102: 9})
    members.start(THREE, 3)
    assert members.update(THREE) == [100, 101]
    assert (members.at_start, members.num_partitions) == (2, 3)
    assert members.changes[0]["takes-part"] is False


def test_each_change_is_logged_and_recorded_with_the_round_that_is_in_progress(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    fleet.members.update([FIRST, FIRST + 2])
    fleet.members.server_round = 4
    fleet.members.update([FIRST])
    assert caplog.messages == [
        "SuperNode 101 (partition-id 1) left; 2 of 3 remain online",
        "Round 4: SuperNode 102 (partition-id 2) left; 1 of 3 remain online",
    ]
    assert [change["round"] for change in fleet.members.changes] == [None, 4]


def test_a_node_that_is_online_keeps_its_partition_in_a_run_although_the_fleet_has_given_it_another(
    fleet: Fleet,
) -> None:
    fleet.partition_ids[FIRST + 2] = 5
    fleet.members.update(THREE)
    assert fleet.members.partition_ids[FIRST + 2] == 2


def test_a_node_that_rejoins_with_a_partition_that_the_run_does_not_have_waits_for_the_next_run(fleet: Fleet) -> None:
    fleet.members.update(THREE[:2])
    fleet.partition_ids[FIRST + 2] = 3
    for _ in range(2):
        assert fleet.members.update(THREE) == THREE[:2]
    assert fleet.changes() == [("left", 2, True), ("joined", 3, False)]
