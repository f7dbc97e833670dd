"""SELinux labels of the files that are mounted into containers."""

import os
from pathlib import Path

import pytest

from bouquet.errors import HostError
from bouquet.host.checks.selinux import selinux
from bouquet.settings.host import HostSettings
from tests.unit.bouquet.host.docker_answers import docker_info

CONFINED = docker_info(SecurityOptions=["name=seccomp,profile=default", "name=selinux"])


@pytest.fixture
def settings(tmp_path: Path) -> HostSettings:
    return HostSettings.read({"DATASET": str(tmp_path)})


def label(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Give every file a label of this type."""
    monkeypatch.setattr(os, "getxattr", lambda path, name: f"unconfined_u:object_r:{kind}:s0\0".encode())


def test_a_label_that_containers_cannot_read_fails_with_the_command_that_relabels(
    settings: HostSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(monkeypatch, "user_home_t")
    with pytest.raises(HostError, match=r"cannot read .* \(user_home_t\); relabel: chcon -R -t container") as error:
        selinux(CONFINED, settings)
    assert f" {tmp_path} " in error.value.hint
    assert "deploy/compose/empty" in error.value.hint  # it is mounted too


def test_a_label_that_containers_can_read_passes(settings: HostSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    label(monkeypatch, "container_file_t")
    assert selinux(CONFINED, settings) == "SELinux lets containers read the mounted files"


def test_labels_do_not_count_where_docker_does_not_use_selinux(
    settings: HostSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(monkeypatch, "user_home_t")
    assert selinux(docker_info(), settings) == "SELinux does not confine containers"


def test_files_without_a_label_pass(settings: HostSettings) -> None:
    assert selinux(CONFINED, settings)


def test_a_brought_cache_and_the_node_config_are_mounted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nodes.toml").write_text("")
    label(monkeypatch, "user_home_t")
    given = {"HF_CACHE": str(tmp_path / "brought"), "NODE_CONFIG_FILE": str(tmp_path / "nodes.toml")}
    with pytest.raises(HostError) as error:
        selinux(CONFINED, HostSettings.read(given))
    assert f" {tmp_path}/brought {tmp_path}/nodes.toml " in error.value.hint
