import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from python_on_whales.exceptions import DockerException

from bouquet.errors import FleetError
from bouquet.host.fleet.compose import FOLDER_LABEL, ComposeFleet, _member
from bouquet.host.packages.package_list import LIST, SHIPPED_LISTS, UNKNOWN, PackageList
from bouquet.settings.host import PROJECT, HostSettings

SHIPPED = PackageList.read(SHIPPED_LISTS[0] / LIST, PROJECT)


def failure(stderr: bytes = b"Cannot connect to the Docker daemon") -> DockerException:
    return DockerException(["docker", "compose"], 1, stderr=stderr)


class Compose:
    """A Compose project whose `down` fails, with these containers left."""

    def __init__(self, left: list[str]) -> None:
        self.left = left
        self.built = False

    def config(self, return_json: bool) -> dict[str, str]:
        return {"name": "bouquet"}

    def build(self) -> None:
        self.built = True

    def down(self, **options: Any) -> None:
        raise failure()

    def ps(self, services: Any = None, all: bool = False) -> list[str]:
        return self.left


def fleet(left: list[str], folder: Path = PROJECT) -> ComposeFleet:
    made = ComposeFleet(HostSettings.read({"GPUS": "none"}))
    container = SimpleNamespace(config=SimpleNamespace(labels={FOLDER_LABEL: str(folder)}))
    made._docker = SimpleNamespace(  # type: ignore[assignment]
        compose=Compose(left), container=SimpleNamespace(list=lambda **options: [container])
    )
    return made


def test_a_network_that_docker_keeps_does_not_keep_the_fleet_up() -> None:
    fleet([]).down()


def test_containers_that_cannot_be_removed_are_an_error_of_one_line() -> None:
    with pytest.raises(FleetError, match="could not be removed: Cannot connect to the Docker daemon; .*make doctor"):
        fleet(["bouquet-superlink-1"]).down()


COMMANDS: dict[str, Callable[[ComposeFleet], object]] = {
    "up": ComposeFleet.up,
    "down": ComposeFleet.down,
    "members": ComposeFleet.members,
    "node_statuses": ComposeFleet.node_statuses,
    "memory": ComposeFleet.memory,
    "logs": lambda other: other.logs(follow=False),
    "root_certificate": ComposeFleet.root_certificate,
    "collect_results": lambda other: other.collect_results(Path("/nowhere")),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_containers_of_another_checkout_are_refused(command: str, tmp_path: Path) -> None:
    with pytest.raises(FleetError) as refusal:
        COMMANDS[command](fleet([], tmp_path))
    line = str(refusal.value)
    assert f"COMPOSE_PROJECT_NAME=bouquet: its containers belong to another checkout, {tmp_path}" in line
    assert "COMPOSE_PROJECT_NAME=bouquet-2" in line and "CONTROL_PORT" in line and "FLEET_PORT" in line


def test_no_image_is_built_for_a_project_of_another_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bouquet.host.fleet.compose.compose_plugin.ensure", lambda: "found")
    other = fleet([], tmp_path)
    with pytest.raises(FleetError, match="another checkout"):
        list(other.prepare(SHIPPED))
    assert not other._docker.compose.built  # type: ignore[attr-defined]


def test_images_that_have_the_packages_already_are_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bouquet.host.fleet.compose.compose_plugin.ensure", lambda: "found")
    monkeypatch.setattr(
        "bouquet.host.fleet.image_build.base_image.ensure", lambda: pytest.fail("no base image is needed")
    )
    monkeypatch.setenv("TAG", "")
    own = fleet([], PROJECT)
    list(own.prepare(replace(SHIPPED, images="bundle-1")))
    assert os.environ["TAG"] == "bundle-1"
    assert not own._docker.compose.built  # type: ignore[attr-defined]


def test_a_checkout_reached_through_a_link_is_the_same_checkout(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(PROJECT)
    fleet([], link).down()


def test_the_images_are_tagged_with_the_name_of_the_project() -> None:
    assert HostSettings.read({}).tag == "bouquet"
    assert HostSettings.read({"COMPOSE_PROJECT_NAME": "second"}).tag == "second"
    assert HostSettings.read({"COMPOSE_PROJECT_NAME": "second", "TAG": "mine"}).tag == "mine"


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> ComposeFleet:
    """A fleet on whose machine everything is installed; the variables for Compose are restored after the test."""
    monkeypatch.setattr("bouquet.host.fleet.compose.compose_plugin.ensure", lambda: "found")
    monkeypatch.setattr("bouquet.host.fleet.image_build.base_image.ensure", lambda: "base")
    for name in ("BASE_IMAGE", "BOUQUET_PACKAGES", "TAG"):
        monkeypatch.setenv(name, "before")
    monkeypatch.delenv("TAG")
    return fleet([])


def test_the_shipped_list_is_built_as_a_plain_compose_builds_it(ready: ComposeFleet) -> None:
    list(ready.prepare(SHIPPED))
    assert os.environ["BOUQUET_PACKAGES"] == "requirements/cpu/requirements.txt"
    assert "TAG" not in os.environ


def test_another_list_is_copied_into_the_build_context_and_has_images_of_its_own(
    ready: ComposeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bouquet.host.fleet.image_build.PROJECT", tmp_path / "checkout")
    (tmp_path / LIST).write_text("numpy==2.0.2\n")
    packages = PackageList.read(tmp_path / LIST, tmp_path)
    list(ready.prepare(packages))
    assert os.environ["TAG"] == f"bouquet-{packages.digest}"
    copy = tmp_path / "checkout" / os.environ["BOUQUET_PACKAGES"]
    assert copy.read_text() == "numpy==2.0.2\n"
    assert copy.parent == tmp_path / "checkout" / ".bouquet" / "packages"


def test_the_list_of_a_running_fleet_is_the_one_in_its_image() -> None:
    running = fleet(["superlink"])
    down, older = fleet([]), fleet(["superlink"])

    def copy_list(source: Any, destination: str) -> None:
        (Path(destination) / LIST).write_bytes(SHIPPED.path.read_bytes())

    def find_none(source: Any, destination: str) -> None:
        raise failure(b"no such file")

    running._docker.container.copy = copy_list  # type: ignore[assignment, method-assign]
    older._docker.container.copy = find_none  # type: ignore[assignment, method-assign]
    assert (running.packages(), down.packages(), older.packages()) == (SHIPPED.digest, None, UNKNOWN)


def test_the_tag_is_that_of_the_images_that_the_fleet_was_started_from() -> None:
    superlink: Any = SimpleNamespace(config=SimpleNamespace(image="bouquet-superlink:bundle-e2f8"))
    assert (fleet([superlink]).tag(), fleet([]).tag()) == ("bundle-e2f8", None)


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
