"""The names and kinds of nodes: unique, and kept across restarts."""

from pathlib import Path

import pytest

from bouquet.contract.partitions import JOINED
from bouquet.superlink.node_records import FILE, LOCAL, NameTakenError, NodeRecord, NodeRecords


def test_names_and_kinds_outlive_the_process(tmp_path: Path) -> None:
    records = NodeRecords(tmp_path)
    records.note_kind(2**63 + 1, JOINED)
    records.give_name(2**63 + 1, "north")
    assert NodeRecords(tmp_path).of(2**63 + 1) == NodeRecord("north", JOINED)
    assert NodeRecords(tmp_path).of(1) == NodeRecord("", "")


def test_no_two_nodes_have_the_same_name_until_one_is_forgotten(tmp_path: Path) -> None:
    records = NodeRecords(tmp_path)
    records.give_name(1, "north")
    records.give_name(1, "north")
    with pytest.raises(NameTakenError, match="north is the name of node 1"):
        records.give_name(2, "north")
    records.forget(1)
    records.give_name(2, "north")
    assert NodeRecords(tmp_path).of(2).name == "north"


def test_a_kind_that_is_known_costs_no_write(tmp_path: Path) -> None:
    records = NodeRecords(tmp_path)
    records.note_kind(1, LOCAL)
    (tmp_path / FILE).unlink()
    records.note_kind(1, LOCAL)
    assert not (tmp_path / FILE).exists()
