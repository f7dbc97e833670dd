"""The fleet of processes, as far as it shows without one."""

import os
import subprocess
import sys
from pathlib import Path

from bouquet.host.fleet.processes import ProcessFleet
from bouquet.settings.host import HostSettings


def test_a_members_memory_is_that_of_all_its_processes(tmp_path: Path) -> None:
    fleet = ProcessFleet(HostSettings.read({"BOUQUET_HOME": str(tmp_path)}))
    assert fleet.memory() == {}
    hold = "hoard = bytearray(b'.' * (48 << 20)); print('held', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    member = subprocess.Popen(
        [sys.executable, "-c", parent],
        env=os.environ | {"BOUQUET_RUN_DIR": str(tmp_path / "processes" / "run" / "supernode-0")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert member.stdout is not None
        assert member.stdout.readline() == "held\n"
        memory = fleet.memory()
    finally:
        member.communicate("\n", timeout=60)
    assert list(memory) == ["supernode-0"]
    assert 48 << 20 < memory["supernode-0"] < 400 << 20
