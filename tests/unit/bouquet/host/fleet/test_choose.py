"""What the fleet is made of: containers where Docker answers, otherwise processes."""

from pathlib import Path

import pytest

from bouquet.errors import SettingError
from bouquet.host.fleet import choose
from bouquet.host.fleet.choose import choose_fleet
from bouquet.settings.host import HostSettings


def settings(tmp_path: Path, **given: str) -> HostSettings:
    return HostSettings.read({"BOUQUET_HOME": str(tmp_path), **given})


def test_without_docker_on_path_the_fleet_is_processes_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    fleet, why = choose_fleet(settings(tmp_path))
    assert type(fleet).__name__ == "ProcessFleet"
    assert why == "local processes, because no Docker daemon answers"


def test_where_docker_answers_the_fleet_is_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "docker_answers", lambda: True)
    fleet, why = choose_fleet(settings(tmp_path))
    assert type(fleet).__name__ == "ComposeFleet"
    assert why == "containers, because Docker answers"


def test_asking_for_containers_without_docker_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "docker_answers", lambda: False)
    with pytest.raises(SettingError, match="FLEET=containers: no Docker daemon answers here; .*FLEET=processes"):
        choose_fleet(settings(tmp_path, FLEET="containers"))


def test_asking_for_processes_wins_over_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "docker_answers", lambda: True)
    assert type(choose_fleet(settings(tmp_path, FLEET="processes"))[0]).__name__ == "ProcessFleet"
