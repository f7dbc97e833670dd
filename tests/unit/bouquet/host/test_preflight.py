"""Preflight: a start that cannot succeed is refused before anything starts."""

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from bouquet.errors import BouquetError, HostError, SettingError
from bouquet.host.checks import cpu_features
from bouquet.host.checks.disk_space import GIB
from bouquet.host.preflight import check_start
from bouquet.settings.host import HostSettings
from tests.unit.bouquet.conftest import Install
from tests.unit.bouquet.host.docker_answers import docker_script

PACKAGES = {"numpy", "tensorflow-cpu"}
usage = namedtuple("usage", "total used free")


@pytest.fixture(autouse=True)
def much_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, 100 * GIB))


def settings(tmp_path: Path, **given: str) -> HostSettings:
    return HostSettings.read({"BOUQUET_HOME": str(tmp_path), **given})


def test_a_machine_that_has_everything_passes_silently(install: Install, tmp_path: Path) -> None:
    install(docker=docker_script(tmp_path))
    assert list(check_start(settings(tmp_path), PACKAGES, containers=True)) == []


def test_processes_need_no_docker(install: Install, tmp_path: Path) -> None:
    install()
    assert list(check_start(settings(tmp_path), PACKAGES, containers=False)) == []


def test_too_little_disk_is_refused_with_the_figures(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(docker=docker_script(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, int(0.5 * GIB)))
    with pytest.raises(HostError, match=r"512 MiB free, 1\.\d GiB needed for .*Docker's volumes"):
        list(check_start(settings(tmp_path), PACKAGES, containers=True))


@pytest.mark.parametrize(
    ("answer", "given", "error"),
    [
        ({"CpuCfsQuota": False}, {}, HostError),
        ({}, {"DATASET": "private"}, SettingError),
    ],
)
def test_what_containers_cannot_have_is_refused(
    install: Install,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: dict[str, Any],
    given: dict[str, str],
    error: type[BouquetError],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "private" / "train-0.parquet").touch()
    install(docker=docker_script(tmp_path, **answer))
    with pytest.raises(error):
        list(check_start(settings(tmp_path, **given), PACKAGES, containers=True))


def test_what_only_weakens_the_fleet_is_a_warning(install: Install, tmp_path: Path) -> None:
    install(docker=docker_script(tmp_path, PidsLimit=False, Name="another-machine"))
    ignored, unseen = check_start(settings(tmp_path), PACKAGES, containers=True)
    assert ignored.startswith("WARNING: Docker ignores pids limits")
    assert "is not on this machine" in unseen


@pytest.mark.parametrize("containers", [True, False])
def test_a_cpu_without_avx_is_refused_at_once_rather_than_after_up_timeout(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, containers: bool
) -> None:
    (tmp_path / "cpuinfo").write_text("flags : fpu sse sse2\n")
    monkeypatch.setattr(cpu_features, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    install(docker=docker_script(tmp_path))
    with pytest.raises(HostError, match="this CPU lacks AVX, which TensorFlow needs"):
        list(check_start(settings(tmp_path), PACKAGES, containers=containers))
    assert list(check_start(settings(tmp_path), {"numpy"}, containers=containers)) == []


def test_this_cpu_does_not_count_for_containers_on_another_machine(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_features, "cpu_flags", lambda: {"sse"})
    install(docker=docker_script(tmp_path, Name="another-machine"))
    assert list(check_start(settings(tmp_path), PACKAGES, containers=True))  # only the line about its disk


def test_the_dataset_must_be_readable_for_processes_too(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    (tmp_path / "train-0.parquet").touch()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(SettingError, match=f"^DATASET={tmp_path}: uid"):
        list(check_start(settings(tmp_path, DATASET=str(tmp_path)), PACKAGES, containers=False))


def test_a_node_config_for_a_node_that_the_fleet_does_not_have_is_refused(install: Install, tmp_path: Path) -> None:
    install(docker=docker_script(tmp_path))
    (tmp_path / "nodes.toml").write_text("[3]\na = 1\n")
    given = {"NODE_CONFIG_FILE": str(tmp_path / "nodes.toml")}
    assert list(check_start(settings(tmp_path, SUPERNODES="4", **given), PACKAGES, containers=False)) == []
    with pytest.raises(SettingError, match=r"\[3\] is for no node: SUPERNODES=3"):
        list(check_start(settings(tmp_path, SUPERNODES="3", **given), PACKAGES, containers=False))
