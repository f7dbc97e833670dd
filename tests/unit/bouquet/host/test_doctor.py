"""The doctor: each check returns what it found or how to fix it; a failed check does not hide the others."""

from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from bouquet.errors import HostError
from bouquet.host.doctor import CheckResult, run_checks, select_checks
from bouquet.settings.host import HostSettings
from tests.unit.bouquet.conftest import Install
from tests.unit.bouquet.host.docker_answers import docker_script


def test_every_check_runs_and_says_ok_or_how_to_fix_it() -> None:
    def broken() -> str:
        raise HostError("no memory", "buy some")

    results = list(run_checks([("first", broken), ("second", lambda: "there")]))
    assert results == [CheckResult("first", False, "no memory; buy some"), CheckResult("second", True, "there")]
    assert [str(result).split()[0] for result in results] == ["FAILED", "ok"]


@pytest.mark.parametrize("error", [OSError("no space"), TimeoutExpired("docker", 5), ValueError("odd\nanswer")])
def test_a_check_that_raises_anything_is_a_failed_line_and_the_others_run(error: Exception) -> None:
    def broken() -> str:
        raise error

    first, second = run_checks([("first", broken), ("second", lambda: "there")])
    assert not first.ok
    assert first.message.startswith(f"unexpected {type(error).__name__}: ")
    assert "\n" not in first.message
    assert second.ok


def settings(tmp_path: Path, **given: str) -> HostSettings:
    return HostSettings.read({"BOUQUET_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "GPUS": "none", **given})


def test_a_machine_without_docker_is_examined_for_processes(install: Install, tmp_path: Path) -> None:
    install()
    checks = select_checks(settings(tmp_path))
    names = {
        "fleet",
        "memory",
        "disk",
        "ports",
        "gpus",
        "data",
        "clock",
        "certificates",
        "flwr",
        "proxies",
        "folders",
        "cpu",
        "files",
        "cache",
        "packages",
    }
    assert {name for name, _ in checks} == names
    assert dict(checks)["fleet"]() == "10 SuperNodes as local processes, because no Docker daemon answers"


def test_a_docker_that_hangs_is_one_failed_line_and_the_other_checks_run(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bouquet.probing.PROBE_TIMEOUT", 0.2)
    install(docker="exec /bin/sleep 60")
    results = list(run_checks(select_checks(settings(tmp_path))))
    about_docker = [result for result in results if "docker" in result.message.lower() and not result.ok]
    assert [result.name for result in about_docker] == ["fleet"]
    assert "`docker version` does not answer within 0.2 s" in about_docker[0].message
    assert "FLEET=processes" in about_docker[0].message
    assert {result.name for result in results} >= {"memory", "gpus", "data", "clock", "certificates", "cpu", "disk"}


def test_fleet_containers_without_docker_is_one_failed_line_too(install: Install, tmp_path: Path) -> None:
    install()
    first, *others = run_checks(select_checks(settings(tmp_path, FLEET="containers")))
    assert (first.name, first.ok) == ("fleet", False)
    assert len(others) > 5


def test_a_hanging_nvidia_smi_is_one_failed_line(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bouquet.probing.PROBE_TIMEOUT", 0.2)
    install(**{"nvidia-smi": "exec /bin/sleep 60"})
    results = list(run_checks(select_checks(settings(tmp_path, GPUS="auto", FLEET="processes"))))
    [failed] = [result for result in results if "nvidia-smi" in result.message]
    assert not failed.ok
    assert "`nvidia-smi --query-gpu` does not answer within 0.2 s" in failed.message
    assert failed.message.endswith("or use the CPU: GPUS=none")


def test_a_compose_that_fails_is_one_failed_line_and_the_other_checks_run(install: Install, tmp_path: Path) -> None:
    fails = 'case "$*" in *" config"*) echo "yaml: line 3: mapping values are not allowed" >&2; exit 15;; esac'
    install(docker=f"{fails}\n{docker_script(tmp_path)}")
    results = {result.name: result for result in run_checks(select_checks(settings(tmp_path)))}
    assert not results["containers"].ok
    assert "mapping values are not allowed" in results["containers"].message
    assert "memory" in results


def test_a_fleet_of_containers_is_checked_with_its_docker(install: Install, tmp_path: Path) -> None:
    install(docker=docker_script(tmp_path))
    names = [name for name, _ in select_checks(settings(tmp_path))]
    assert {"docker", "compose", "limits", "selinux", "cache", "files", "disk", "cpu"} <= set(names)
