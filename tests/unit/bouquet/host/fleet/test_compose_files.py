from pathlib import Path

import pytest

from bouquet.errors import SettingError
from bouquet.host.fleet.compose_files import compose_files


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "docker-compose.yml").touch()
    return tmp_path


def names(files: list[Path]) -> list[str]:
    return [file.name for file in files]


def test_the_checkouts_compose_file_is_used(checkout: Path) -> None:
    assert compose_files(checkout, {}) == [checkout / "docker-compose.yml"]


@pytest.mark.parametrize(
    "name",
    ["docker-compose.override.yml", "docker-compose.override.yaml", "compose.override.yml", "compose.override.yaml"],
)
def test_the_override_file_follows_it(checkout: Path, name: str) -> None:
    (checkout / name).touch()
    assert names(compose_files(checkout, {})) == ["docker-compose.yml", name]


def test_compose_file_replaces_both(checkout: Path) -> None:
    (checkout / "docker-compose.override.yml").touch()
    (checkout / "more.yml").touch()
    found = compose_files(checkout, {"COMPOSE_FILE": "docker-compose.yml:more.yml"})
    assert found == [checkout / "docker-compose.yml", checkout / "more.yml"]


def test_compose_file_may_have_another_separator_and_absolute_paths(checkout: Path, tmp_path: Path) -> None:
    more = tmp_path / "with : colon.yml"
    more.touch()
    setting = {"COMPOSE_FILE": f"docker-compose.yml;{more}", "COMPOSE_PATH_SEPARATOR": ";"}
    assert compose_files(checkout, setting) == [checkout / "docker-compose.yml", more]


def test_a_file_that_does_not_exist_is_refused_by_name(checkout: Path) -> None:
    with pytest.raises(SettingError, match=r"COMPOSE_FILE=docker-compose.yml:nowhere.yml: there is no file .*/nowhere"):
        compose_files(checkout, {"COMPOSE_FILE": "docker-compose.yml:nowhere.yml"})
