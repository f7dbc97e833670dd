"""Which node holds which partition, in files."""

from pathlib import Path

import pytest

from bouquet.contract import partitions
from bouquet.contract.partitions import (
    ReportedPartitions,
    read_num_partitions,
    read_partition_ids,
    remove_num_partitions,
    write_num_partitions,
)


def test_reported_partitions_are_read_by_other_processes_and_kept_by_the_next(tmp_path: Path) -> None:
    assert read_partition_ids(tmp_path) == {}
    large = 2**64 - 1
    ReportedPartitions(tmp_path).record(large, 4)
    ReportedPartitions(tmp_path).record(7, 0)
    assert read_partition_ids(tmp_path) == {large: 4, 7: 0}


def test_a_known_partition_is_not_written_again_and_a_failed_write_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = ReportedPartitions(tmp_path)
    writes: list[object] = []

    def full(*arguments: object) -> None:
        writes.append(arguments)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(partitions, "write_atomically", full)
        with pytest.raises(OSError, match="No space"):
            reported.record(7, 1)
    reported.record(7, 1)
    assert read_partition_ids(tmp_path) == {7: 1}
    monkeypatch.setattr(partitions, "write_atomically", full)
    reported.record(7, 1)
    assert len(writes) == 1


def test_the_number_of_partitions_belongs_to_a_run(tmp_path: Path) -> None:
    assert read_num_partitions(tmp_path, 1) is None
    write_num_partitions(tmp_path, 1, 10)
    write_num_partitions(tmp_path, 2, 12)
    assert (read_num_partitions(tmp_path, 1), read_num_partitions(tmp_path, 2)) == (10, 12)
    for _ in range(2):
        remove_num_partitions(tmp_path, 1)
    assert (read_num_partitions(tmp_path, 1), read_num_partitions(tmp_path, 2)) == (None, 12)
