"""The fleet of processes, as far as it shows without one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bouquet.errors import FleetError, SettingError
from bouquet.host.fleet.processes import ProcessFleet
from bouquet.host.fleet.supervisor import Child, write_plan
from bouquet.host.packages.package_list import LIST, SHIPPED_LISTS, UNKNOWN, PackageList, list_digest
from bouquet.settings import run_settings
from bouquet.settings.executor_settings import VARIABLES
from bouquet.settings.host import PROJECT, HostSettings


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


def test_a_folder_of_the_users_in_place_of_the_fleets_is_refused_and_kept(tmp_path: Path) -> None:
    logs = tmp_path / "processes" / "logs"
    logs.mkdir(parents=True)
    (logs / "diary").touch()
    fleet = ProcessFleet(HostSettings.read({"BOUQUET_HOME": str(tmp_path), "GPUS": "none"}))
    with pytest.raises(SettingError, match=r"BOUQUET_HOME=.* has files that are not Bouquet's \(logs, \.\.\.\)"):
        fleet.up()
    fleet.down(volumes=True)
    assert (logs / "diary").exists()


@pytest.mark.parametrize("variable", run_settings.VARIABLES)
def test_a_change_of_a_deadline_changes_the_superlink_only(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = ProcessFleet(HostSettings.read({"BOUQUET_HOME": str(tmp_path)}))
    monkeypatch.delenv(variable, raising=False)
    superlink, *supernodes = fleet._children()
    monkeypatch.setenv(variable, "7")
    changed, *same = fleet._children()
    assert changed.environment[variable] == "7"
    assert (changed != superlink, same) == (True, supernodes)


def test_results_are_copied_and_the_fleet_keeps_them(tmp_path: Path) -> None:
    fleet = ProcessFleet(HostSettings.read({"BOUQUET_HOME": str(tmp_path)}))
    kept, mine = tmp_path / "processes" / "results", tmp_path / "my results"
    for run_id in ("1", "2"):
        (kept / run_id).mkdir(parents=True)
        (kept / run_id / "metrics.json").write_text(run_id)
    (kept / "2" / ".unfinished-final_model.keras").touch()
    (kept / "latest").symlink_to("2")
    fleet.collect_results(mine, "3")  # a run that was rejected
    fleet.collect_results(mine, "1")
    assert sorted(path.name for path in mine.iterdir()) == ["1", "latest"]
    fleet.collect_results(mine)
    assert (mine / "latest" / "metrics.json").read_text() == "2"
    assert [path.name for path in (mine / "2").iterdir()] == ["metrics.json"]
    (tmp_path / "file").touch()
    with pytest.raises(FleetError, match="the fleet keeps the results: .* then: make results"):
        fleet.collect_results(tmp_path / "file", "1")
    assert (kept / "1" / "metrics.json").exists()


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_change_of_the_executors_settings_changes_the_fleets_plan(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = ProcessFleet(HostSettings.read({"BOUQUET_HOME": str(tmp_path)}))
    monkeypatch.delenv(variable, raising=False)
    before = fleet._children()
    assert fleet._children() == before
    monkeypatch.setenv(variable, "7")
    assert fleet._children() != before


def test_members_run_in_the_environment_of_the_list_with_bouquet_from_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bouquet.host.fleet.processes.ensure_environment", lambda packages: tmp_path / "env")
    fleet = ProcessFleet(HostSettings.read({"BOUQUET_HOME": str(tmp_path), "GPUS": "none"}))
    packages = PackageList.read(SHIPPED_LISTS[0] / LIST, PROJECT)
    list(fleet.prepare(packages))
    for child in fleet._children():
        assert child.command[:2] == [str(tmp_path / "env" / "bin" / "python"), "-P"]
        assert child.environment["PATH"].startswith(f"{tmp_path / 'env' / 'bin'}:")
        assert child.environment["PYTHONPATH"] == str(PROJECT / "deploy")


def test_the_list_of_a_running_fleet_is_the_one_in_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = ProcessFleet(HostSettings.read({"BOUQUET_HOME": str(tmp_path)}))
    assert fleet.packages() is None
    (tmp_path / "processes").mkdir()
    fleet._python = str(tmp_path / "env" / "bin" / "python")
    write_plan(tmp_path / "processes" / "plan.json", fleet._children())
    monkeypatch.setattr(fleet, "_supervisor", lambda: 1)
    assert fleet.packages() == UNKNOWN
    (tmp_path / "env").mkdir()
    shutil.copy(SHIPPED_LISTS[0] / LIST, tmp_path / "env")
    assert fleet.packages() == list_digest((SHIPPED_LISTS[0] / LIST).read_bytes())


def test_a_changed_file_with_the_node_config_changes_the_fleets_plan(tmp_path: Path) -> None:
    file = tmp_path / "nodes.toml"

    def children() -> list[Child]:
        return ProcessFleet(
            HostSettings.read({"BOUQUET_HOME": str(tmp_path), "NODE_CONFIG_FILE": str(file)})
        )._children()

    file.write_text("a = 1")
    before = children()
    assert children() == before
    file.write_text("a = 2")
    assert children() != before


def test_a_brought_cache_is_linked_into_a_cache_of_the_fleets_and_otherwise_the_users_own_is_used(
    tmp_path: Path,
) -> None:
    given = {"BOUQUET_HOME": str(tmp_path)}
    for child in ProcessFleet(HostSettings.read(given))._children():
        assert not {"HF_HOME", "BOUQUET_HF_CACHE"} & child.environment.keys()
    for child in ProcessFleet(HostSettings.read({**given, "HF_CACHE": "/brought"}))._children():
        assert child.environment["BOUQUET_HF_CACHE"] == "/brought"
        assert child.environment["HF_HOME"] == f"{tmp_path}/processes/cache/huggingface"
        assert child.environment["HF_DATASETS_CACHE"] == f"{tmp_path}/processes/cache/huggingface/datasets"
