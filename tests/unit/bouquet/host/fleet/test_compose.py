from types import SimpleNamespace
from typing import Any

import pytest
from python_on_whales.exceptions import DockerException

from bouquet.host.fleet.compose import ComposeFleet, _member
from bouquet.settings.host import HostSettings


class Compose:
    """A Compose whose `down` fails, with these containers left."""

    def __init__(self, left: list[str]) -> None:
        self.left = left

    def down(self, **options: Any) -> None:
        raise DockerException(["docker", "compose", "down"], 1)

    def ps(self, all: bool = False) -> list[str]:
        return self.left


def fleet(left: list[str]) -> ComposeFleet:
    made = ComposeFleet(HostSettings.read({}))
    made._docker = SimpleNamespace(compose=Compose(left))  # type: ignore[assignment]
    return made


def test_a_network_that_docker_keeps_does_not_keep_the_fleet_up() -> None:
    fleet([]).down()


def test_containers_that_cannot_be_removed_are_an_error() -> None:
    with pytest.raises(DockerException):
        fleet(["bouquet-superlink-1"]).down()


@pytest.mark.parametrize(
    ("status", "oom_killed", "state"),
    [
        ("running", False, "healthy"),
        ("exited", False, "exited"),
        ("restarting", True, "restarting, out of memory: set SUPERLINK_MEMORY higher"),
    ],
)
def test_a_container_that_was_killed_for_memory_names_the_setting(status: str, oom_killed: bool, state: str) -> None:
    container: Any = SimpleNamespace(
        name="bouquet-superlink-1",
        config=SimpleNamespace(labels={"com.docker.compose.service": "superlink"}, hostname="here"),
        state=SimpleNamespace(status=status, oom_killed=oom_killed, health=SimpleNamespace(status="healthy")),
    )
    assert _member(container, None).state == state
