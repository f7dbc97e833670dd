"""The doctor: each check returns what it found or how to fix it; a failed check does not hide the others."""

from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from bouquet.errors import HostError
from bouquet.host import doctor
from bouquet.host.doctor import CheckResult, run_checks
from bouquet.settings.host import HostSettings
from tests.unit.bouquet.conftest import Install


def test_every_check_runs_and_says_ok_or_how_to_fix_it() -> None:
    def broken() -> str:
        raise HostError("no memory", "buy some")

    results = list(run_checks({"first": broken, "second": lambda: "there"}))
    assert results == [CheckResult("first", False, "no memory; buy some"), CheckResult("second", True, "there")]
    assert [str(result).split()[0] for result in results] == ["FAILED", "ok"]


@pytest.mark.parametrize("error", [OSError("no space"), TimeoutExpired("docker", 5), ValueError("odd\nanswer")])
def test_a_check_that_raises_anything_is_a_failed_line_and_the_others_run(error: Exception) -> None:
    def broken() -> str:
        raise error

    first, second = run_checks({"first": broken, "second": lambda: "there"})
    assert not first.ok
    assert first.message.startswith(f"unexpected {type(error).__name__}: ")
    assert "\n" not in first.message
    assert second.ok


def test_a_machine_without_docker_is_examined_for_processes(install: Install, tmp_path: Path) -> None:
    install()
    checks = doctor.select_checks(HostSettings.read({"BOUQUET_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}))
    assert set(checks) == {"fleet", "memory", "disk", "ports", "gpus", "data", "clock", "certificates"}
    assert checks["fleet"]() == "10 SuperNodes as local processes, because no Docker daemon answers"
