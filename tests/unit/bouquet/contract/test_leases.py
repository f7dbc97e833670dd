"""The partition-id lease: every id once, no gaps, released with its holder."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bouquet.contract.leases import holders, lease_partition
from bouquet.errors import FleetError, SettingError

HOLD = "import sys, time; from bouquet.contract.leases import holders, lease_partition; from pathlib import Path; "


def hold(leases: Path, supernodes: int) -> tuple["subprocess.Popen[str]", int]:
    """Take a lease in another process, through an exec, and keep it."""
    code = HOLD + (
        f"k = lease_partition(Path({str(leases)!r}), {supernodes}); import os; "
        "os.execv(sys.executable, [sys.executable, '-c', f'import time; print({k}, flush=True); time.sleep(60)'])"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    return holder, int(holder.stdout.readline())


def test_every_id_is_taken_exactly_once_and_one_holder_too_many_is_refused(tmp_path: Path) -> None:
    assert [lease_partition(tmp_path, 4) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(FleetError, match=r"SUPERNODES=4: all partition-ids 0..3 are taken; .*SUPERNODES=5"):
        lease_partition(tmp_path, 4)


def test_a_lease_passes_through_exec_and_is_free_again_when_its_holder_is_killed(tmp_path: Path) -> None:
    holders = [hold(tmp_path, 3) for _ in range(3)]
    try:
        assert sorted(k for _, k in holders) == [0, 1, 2]
        killed, released = holders[1]
        killed.kill()
        killed.wait()
        assert lease_partition(tmp_path, 3) == released
    finally:
        for holder, _ in holders:
            holder.kill()
            holder.wait()


def test_a_wanted_id_that_is_taken_is_refused_and_names_its_holder(tmp_path: Path) -> None:
    assert lease_partition(tmp_path, 3, wanted=1) == 1
    with pytest.raises(SettingError, match="PARTITION_ID=1: taken by the SuperNode on .+; give each SuperNode its own"):
        lease_partition(tmp_path, 3, wanted=1)


def test_ids_that_others_are_pinned_to_are_skipped(tmp_path: Path) -> None:
    lease_partition(tmp_path, 3, wanted=0)
    lease_partition(tmp_path, 3, wanted=2)
    assert lease_partition(tmp_path, 3) == 1


def test_only_leases_that_are_held_have_holders(tmp_path: Path) -> None:
    (tmp_path / "partition-7").write_text("a host of a larger fleet\n")
    holder, taken = hold(tmp_path, 3)
    try:
        assert holders(tmp_path) == {taken: socket.gethostname()}
    finally:
        holder.kill()
        holder.wait()
    assert holders(tmp_path) == {}
