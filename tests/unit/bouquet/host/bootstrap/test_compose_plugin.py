"""Compose and buildx: left alone where they work, otherwise taken from Debian 13 into the user's Docker folder."""

import os
from pathlib import Path

import pytest

from bouquet.errors import HostError
from bouquet.host.bootstrap import compose_plugin
from tests.unit.bouquet.conftest import Install

# A docker whose plugins work if they are in the folder where Docker looks.
DOCKER = '[ -x "$DOCKER_CONFIG/cli-plugins/docker-$1" ] && echo 2.26.1'
# A dpkg that unpacks each plugin from a file of its name.
DPKG = """name=${2##*/}; name=${name%%_*}; folder=$3/usr/libexec/docker/cli-plugins
/bin/mkdir -p "$folder"; echo "#!/bin/sh" > "$folder"/$name"""
APT = 'for last; do case "$last" in docker-*) echo > "${last}_1_amd64.deb" ;; esac; done'


@pytest.fixture(autouse=True)
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with Debian's keyring, and a Docker folder of the test's own."""
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(compose_plugin, "KEYRING", keyring)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))


def calls(folder: Path, name: str) -> list[str]:
    return [call for call in (folder / "calls").read_text().splitlines() if call.startswith(name)]


def test_plugins_that_work_are_left_alone(tmp_path: Path, install: Install) -> None:
    install(docker="echo 2.40.0", **{"apt-get": "exit 1"})
    assert compose_plugin.ensure() == "Compose 2.40.0 found"
    assert not calls(tmp_path, "apt-get")


def test_missing_plugins_come_from_debian_into_the_users_docker_folder(tmp_path: Path, install: Install) -> None:
    install(docker=DOCKER, dpkg=DPKG, **{"apt-get": APT})
    installed = compose_plugin.ensure()
    plugins = tmp_path / "config" / "cli-plugins"
    assert "docker-compose and docker-buildx from Debian 13" in installed
    assert str(plugins) in installed
    assert sorted(path.name for path in plugins.iterdir()) == ["docker-buildx", "docker-compose"]
    assert all(os.access(path, os.X_OK) for path in plugins.iterdir())


def test_only_the_missing_one_is_fetched(tmp_path: Path, install: Install) -> None:
    plugins = tmp_path / "config" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").touch(mode=0o755)
    install(docker=DOCKER, dpkg=DPKG, **{"apt-get": APT})
    compose_plugin.ensure()
    assert calls(tmp_path, "apt-get")[-1].endswith("download docker-buildx")


def test_the_systems_apt_is_not_touched_and_signatures_are_asked_for(tmp_path: Path, install: Install) -> None:
    install(docker=DOCKER, dpkg=DPKG, **{"apt-get": APT})
    compose_plugin.ensure()
    for call in calls(tmp_path, "apt-get"):
        for setting in ("Dir::Etc::SourceList", "Dir::State", "Dir::State::status", "Dir::Cache"):
            assert f"{setting}=" in call
            assert "bouquet-plugins-" in call.partition(f"{setting}=")[2].split()[0]
        assert "AllowUnauthenticated=false" in call
        assert "AllowInsecureRepositories=false" in call
    assert f"signed-by={tmp_path}" not in compose_plugin.SOURCE  # Debian's keyring, not the test's
    assert "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg" in compose_plugin.SOURCE


def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    install(docker=DOCKER, dpkg=DPKG, **{"apt-get": APT})
    compose_plugin.ensure()
    assert not list(scratch.iterdir())


def test_where_debian_does_not_answer_apts_last_line_is_the_error(install: Install) -> None:
    install(docker=DOCKER, dpkg=DPKG, **{"apt-get": "echo 'E: no network' >&2; exit 100"})
    with pytest.raises(HostError, match="E: no network; install Docker Compose v2"):
        compose_plugin.ensure()


def test_a_host_that_is_no_debian_is_told_what_to_install(install: Install) -> None:
    install(docker=DOCKER)
    with pytest.raises(HostError, match=r"apt-get, dpkg missing\); install Docker Compose v2"):
        compose_plugin.ensure()


def test_without_docker_the_error_says_so(install: Install) -> None:
    install()
    with pytest.raises(HostError, match="docker is not on PATH"):
        compose_plugin.ensure()
