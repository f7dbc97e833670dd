"""When a fleet is complete."""

from dataclasses import replace

from bouquet.host.fleet.base import Member, is_complete

FLEET = [Member("superlink", "superlink", "healthy"), *(Member(f"n{k}", "supernode", "healthy", k) for k in range(3))]


def test_a_fleet_is_complete_when_all_are_healthy_and_every_partition_id_below_its_size_is_held() -> None:
    assert is_complete(FLEET, 3)
    assert not is_complete(FLEET, 2)
    assert not is_complete(FLEET, 4)
    assert not is_complete([], 3)


def test_a_member_that_is_not_healthy_or_has_no_partition_of_its_own_makes_a_fleet_incomplete() -> None:
    *others, last = FLEET
    assert not is_complete([*others, replace(last, state="starting")], 3)
    assert not is_complete([*others, replace(last, partition_id=None)], 3)
    assert not is_complete([*others, replace(last, partition_id=1)], 3)
    assert is_complete([*others, replace(last, partition_id=7)], 3)  # a node that has joined may hold partition-id 2
