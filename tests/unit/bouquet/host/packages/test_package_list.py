"""The list of an app's packages: resolved from an index on this machine, kept, and refused in one line."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from bouquet.errors import HostError, SettingError
from bouquet.host.packages import package_list as module
from bouquet.host.packages.package_list import PackageList, image_tag, package_list
from bouquet.settings.host import PROJECT, HostSettings
from tests.unit.bouquet.host.packages.conftest import Index, MakeApp


@pytest.fixture
def settings(tmp_path: Path) -> HostSettings:
    return HostSettings.read({"BOUQUET_HOME": str(tmp_path / "home")})


def versions(packages: PackageList) -> dict[str, str]:
    return dict(re.findall(r"^([a-z-]+)==(\S+)", packages.path.read_text(), re.MULTILINE))


def test_a_list_has_the_apps_packages_and_bouquets_with_hashes(
    index: Index, make_app: MakeApp, settings: HostSettings
) -> None:
    packages = package_list(make_app("flwr[simulation]>=1.27", "numpy>=2"), settings, gpus=False)
    assert versions(packages) == {
        "cryptography": "46.0.0",
        "flwr": "1.34.0",
        "matplotlib": "3.10.0",
        "numpy": versions(packages)["numpy"],
    }
    assert packages.names == versions(packages).keys()
    lines = packages.path.read_text().splitlines()
    assert sum("--hash=sha256:" in line for line in lines) == 4
    assert packages.digest == hashlib.sha256(packages.path.read_bytes()).hexdigest()[:12]
    assert image_tag("mine", packages.digest) == f"mine-{packages.digest}"


def test_the_same_inputs_give_the_identical_list_without_a_network(
    index: Index, make_app: MakeApp, settings: HostSettings
) -> None:
    first = package_list(make_app("numpy"), settings, gpus=False)
    content = first.path.read_bytes()
    index.add("numpy", "9.0.0")
    index.stop()
    other = make_app("numpy", name="same-packages", more="[tool.flwr.app.config]\nlearning-rate = 0.1\n")
    for app in (make_app("numpy"), other):
        again = package_list(app, settings, gpus=False)
        assert (again.digest, again.path.read_bytes(), again.app) == (first.digest, content, app)


def test_versions_of_the_apps_lock_are_kept_where_they_fit(
    index: Index, make_app: MakeApp, settings: HostSettings
) -> None:
    app = make_app("flwr>=1.27", "numpy")
    registry = f'source = {{ registry = "{index.url}" }}'
    (app / "uv.lock").write_text(
        f'[[package]]\nname = "numpy"\nversion = "2.0.2"\n{registry}\n'
        f'[[package]]\nname = "flwr"\nversion = "1.42.0"\n{registry}\n'
    )
    found = versions(package_list(app, settings, gpus=False))
    assert (found["numpy"], found["flwr"]) == ("2.0.2", "1.34.0")


def test_an_index_of_the_app_is_named_in_the_list_and_a_mirror_of_the_users_is_not(
    index: Index, make_app: MakeApp, settings: HostSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Index(tmp_path / "lab")
    lab.add("lab-tools", "1.0")
    table = f'[[tool.uv.index]]\nname = "lab"\nurl = "{lab.url}"\nexplicit = true\n'
    more = f'{table}[tool.uv.sources]\nlab-tools = {{ index = "lab" }}'
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url.replace("http://", "http://me:secret@"))
    try:
        packages = package_list(make_app("numpy", "lab-tools", more=more), settings, gpus=False)
    finally:
        lab.stop()
    text = packages.path.read_text()
    assert re.findall(r"^--.*$", text, re.MULTILINE) == [f"--extra-index-url {lab.url}"]
    assert versions(packages)["lab-tools"] == "1.0"
    assert "secret" not in text and index.url not in text


def test_a_second_index_of_the_users_is_used_and_not_in_the_list(
    index: Index, make_app: MakeApp, settings: HostSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Index(tmp_path / "lab")
    lab.add("lab-tools", "1.0")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", lab.url.replace("http://", "http://me:secret@"))
    try:
        packages = package_list(make_app("lab-tools"), settings, gpus=False)
    finally:
        lab.stop()
    text = packages.path.read_text()
    assert "lab-tools==1.0" in text
    assert "--extra-index-url" not in text and "secret" not in text


def test_a_package_or_version_that_does_not_exist_is_named(
    index: Index, make_app: MakeApp, settings: HostSettings
) -> None:
    expected = "^the packages of my-app cannot be installed: Because only numpy<=2.4.0 is .*, no versions fit; "
    with pytest.raises(HostError, match=expected):
        package_list(make_app("numpy>=99"), settings, gpus=False)
    with pytest.raises(
        HostError, match="Because nonesuch was not found in the package registry and my-app depends"
    ) as e:
        package_list(make_app("nonesuch"), settings, gpus=False)
    assert "\n" not in str(e.value) and str(e.value).count("correct [project] dependencies") == 1
    assert not (settings.home / "packages").exists()


def test_an_index_that_does_not_answer_is_told_from_a_missing_package(
    index: Index, make_app: MakeApp, settings: HostSettings
) -> None:
    index.stop()
    with pytest.raises(
        HostError, match=r"^the packages of my-app cannot be downloaded: .*refused.*; check the network"
    ):
        package_list(make_app("numpy"), settings, gpus=False)


@pytest.mark.parametrize("asked", ["flwr>=1.36", "flwr[simulation]==1.30.0", "flwr<1.30"])
def test_an_app_that_needs_another_flower_is_refused(asked: str, make_app: MakeApp, settings: HostSettings) -> None:
    with pytest.raises(SettingError, match=r"the app needs flwr.*, and this fleet has Flower 1.34.0; allow that"):
        package_list(make_app(asked), settings, gpus=False)


@pytest.mark.parametrize(
    ("requires", "python", "problem"),
    [
        (">=3.14", None, "requires-python = '>=3.14', and Bouquet runs on Python 3.11 to 3.13"),
        ("<3.11", None, "requires-python = '<3.11', and Bouquet runs on"),
        (">=3.12", "3.11", "requires-python = '>=3.12', and this fleet has Python 3.11; change .*BASE_IMAGE"),
        ("<3.12", "3.12.4", "requires-python = '<3.12', and this fleet has Python 3.12.4"),
    ],
)
def test_an_app_for_another_python_is_refused(
    requires: str, python: str | None, problem: str, make_app: MakeApp, settings: HostSettings
) -> None:
    with pytest.raises(SettingError, match=problem):
        package_list(make_app(project=f'requires-python = "{requires}"'), settings, gpus=False, python=python)


def test_a_python_that_fits_makes_the_list_for_the_oldest_one_that_does(
    index: Index, make_app: MakeApp, settings: HostSettings
) -> None:
    app = make_app("numpy", project='requires-python = ">=3.11.4,<3.13"')
    digests = {package_list(app, settings, gpus=False, python=each).digest for each in (None, "3.11", "3.12.1")}
    assert len(digests) == 1


def test_a_folder_that_cannot_be_written_is_named(index: Index, make_app: MakeApp, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"BOUQUET_HOME=.*/file: cannot be written \(.*\); give a folder that you"):
        package_list(make_app("numpy"), HostSettings.read({"BOUQUET_HOME": str(tmp_path / "file")}), gpus=False)


# -- The lists that come with the checkout


@pytest.mark.parametrize(("gpus", "folder"), [(False, module.SHIPPED_LISTS[0]), (True, module.SHIPPED_LISTS[1])])
def test_the_shipped_app_has_its_list_in_the_checkout(
    gpus: bool, folder: Path, settings: HostSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails: `.venv/bin/python -m bouquet.host.packages.package_list`."""
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    monkeypatch.setattr(module, "resolve", lambda *_: pytest.fail("requirements/ is not in step with pyproject.toml"))
    packages = package_list(PROJECT, settings, gpus=gpus)
    assert packages.path == folder / "requirements.txt"
    assert image_tag("mine", packages.digest) == "mine"
    assert packages.names >= {"flwr", "keras", "matplotlib", "cryptography", "pillow", "flwr-datasets"}
    assert not packages.names & {"ray", "uv", "libclang", "pytest"}


def test_the_shipped_lists_have_the_versions_of_the_lock() -> None:
    lock = tomllib.loads((PROJECT / "uv.lock").read_text(encoding="utf-8"))["package"]
    locked = {(each["name"], each["version"]) for each in lock if "version" in each}
    for folder in module.SHIPPED_LISTS:
        listed = set(re.findall(r"^([a-z0-9-]+)==(\S+)", (folder / "requirements.txt").read_text(), re.MULTILINE))
        known = {name for name, _ in locked}
        assert {each for each in listed if each[0] in known} <= locked, folder
        assert len(listed) > 90
