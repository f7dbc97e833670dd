"""What the fleet is made of: containers where Docker answers, otherwise processes."""

from pathlib import Path

import pytest

from bouquet import probing
from bouquet.errors import HostError, SettingError
from bouquet.host.fleet import choose
from bouquet.host.fleet.choose import choose_fleet
from bouquet.host.swarm import docker_swarm
from bouquet.settings.host import HostSettings
from tests.unit.bouquet.conftest import Install


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
    monkeypatch.setattr(docker_swarm, "exists", lambda stack: False)
    fleet, why = choose_fleet(settings(tmp_path))
    assert type(fleet).__name__ == "ComposeFleet"
    assert why == "containers, because Docker answers"


def test_asking_for_containers_without_docker_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "docker_answers", lambda: False)
    with pytest.raises(SettingError, match="FLEET=containers: no Docker daemon answers here; .*FLEET=processes"):
        choose_fleet(settings(tmp_path, FLEET="containers"))


@pytest.mark.parametrize("given", [{"FLEET": "swarm"}, {"COMPOSE_PROJECT_NAME": "deployed"}])
def test_a_stack_is_the_fleet_on_request_and_while_it_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    monkeypatch.setattr(choose, "docker_answers", lambda: True)
    monkeypatch.setattr(docker_swarm, "exists", lambda stack: stack == "deployed")
    fleet, why = choose_fleet(settings(tmp_path, **given))
    assert type(fleet).__name__ == "SwarmFleet"
    assert why.startswith("tasks of a Swarm, because ")


def test_asking_for_a_swarm_without_docker_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "docker_answers", lambda: False)
    with pytest.raises(SettingError, match="FLEET=swarm: no Docker daemon answers here"):
        choose_fleet(settings(tmp_path, FLEET="swarm"))


def test_asking_for_processes_wins_over_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "docker_answers", lambda: True)
    assert type(choose_fleet(settings(tmp_path, FLEET="processes"))[0]).__name__ == "ProcessFleet"


@pytest.mark.parametrize("hangs", ["version", "ps"])
@pytest.mark.parametrize("fleet", ["auto", "containers"])
def test_a_docker_that_hangs_is_an_error_that_names_processes_as_the_way_out(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch, hangs: str, fleet: str
) -> None:
    monkeypatch.setattr(probing, "PROBE_TIMEOUT", 0.2)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    install(docker=f'[ "$1" != {hangs} ] || exec /bin/sleep 60')
    with pytest.raises(
        HostError, match=rf"^`docker {hangs}` does not answer within .*FLEET=processes \(DOCKER_HOST=tcp"
    ):
        choose_fleet(settings(tmp_path, FLEET=fleet))
    assert type(choose_fleet(settings(tmp_path, FLEET="processes"))[0]).__name__ == "ProcessFleet"
