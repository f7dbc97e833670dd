"""The environment of a list: installed once, with hashes, and recreated if its installation broke off."""

import subprocess
from pathlib import Path

import pytest

from bouquet.errors import HostError, SettingError
from bouquet.host.own_folder import MARKER
from bouquet.host.packages.package_env import ensure_environment, environment_of, is_installed
from bouquet.host.packages.package_list import PackageList, package_list
from bouquet.settings.host import HostSettings
from tests.unit.bouquet.host.packages.conftest import Index, MakeApp


@pytest.fixture
def packages(index: Index, make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageList:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my cache"))
    settings = HostSettings.read({"BOUQUET_HOME": str(tmp_path / "home")})
    return package_list(make_app("numpy==2.0.2"), settings, gpus=False)


def test_an_environment_has_the_packages_of_its_list_and_is_reused_without_a_network(
    packages: PackageList, index: Index, tmp_path: Path
) -> None:
    folder = ensure_environment(packages)
    assert folder.parent == tmp_path / "my cache" / "bouquet"
    assert folder.name.startswith(f"packages-{packages.digest}-py3")
    show = [str(folder / "bin" / "python"), "-c", "import numpy; print(numpy.version)"]
    assert subprocess.check_output(show, text=True) == "2.0.2\n"
    index.stop()
    assert ensure_environment(packages) == folder


def test_an_installation_that_broke_off_is_repeated(
    packages: PackageList, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = next((index.folder / "numpy").glob("*2.0.2*"))
    content = wheel.read_bytes()
    wheel.write_bytes(content[:-1] + b"x")  # another hash than in the list
    with pytest.raises(HostError, match="`uv pip sync` failed; fix the error above and retry; for a package mirror"):
        ensure_environment(packages)
    assert not is_installed(environment_of(packages))
    wheel.write_bytes(content)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "another uv-cache"))
    assert is_installed(ensure_environment(packages))
    assert (environment_of(packages) / MARKER).exists()


def test_a_folder_of_the_users_is_refused_and_kept(packages: PackageList) -> None:
    folder = environment_of(packages)
    folder.mkdir(parents=True)
    (folder / "thesis.txt").touch()
    with pytest.raises(SettingError, match="has files that are not Bouquet's"):
        ensure_environment(packages)
    assert (folder / "thesis.txt").exists()
