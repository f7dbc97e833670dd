"""What an app asks for, and apps that are refused before anything is stopped."""

from pathlib import Path

import pytest

from bouquet.errors import SettingError
from bouquet.host.packages.app_manifest import AppManifest
from tests.unit.bouquet.host.packages.conftest import MakeApp

SOURCE = '[tool.uv.sources]\nnumpy = {{ {} = "x" }}'


def test_an_app_is_read_with_its_lock_and_the_indexes_it_names(make_app: MakeApp) -> None:
    more = '[[tool.uv.index]]\nname = "lab"\nurl = "https://lab.example/simple"\n[tool.uv]\ndev-dependencies = ["ruff"]'
    app = make_app("flwr>=1.27", "numpy>=2 ; sys_platform == 'linux'", project='requires-python = ">=3.11"', more=more)
    package = '[[package]]\nname = "{}"\nversion = "2.1"\nsource = {{ {} }}\n'
    (app / "uv.lock").write_text(
        package.format("numpy", 'registry = "https://pypi.org/simple"') + package.format("my-app", 'virtual = "."')
    )
    manifest = AppManifest.read(app)
    assert manifest.name == "my-app"
    assert [requirement.name for requirement in manifest.dependencies] == ["flwr", "numpy"]
    assert str(manifest.python) == ">=3.11"
    assert manifest.uv == {"index": [{"name": "lab", "url": "https://lab.example/simple"}]}
    assert manifest.locked == (("numpy", "2.1"),)


def test_a_folder_without_an_app_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^APP=.*/nowhere: there is no such folder; give the folder of a Flower"):
        AppManifest.read(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("dependency", "project", "more", "problem"),
    [
        ("numpy @ git+https://github.com/numpy/numpy", "", "", r"numpy@ git\+https://.* has no hash; name a released"),
        ("numpy @ file:///tmp/numpy", "", "", "has no hash; name a released version of it"),
        ("numpy", "", SOURCE.format("git"), r"numpy comes from `git` in \[tool.uv.sources\], so it has no hash"),
        ("numpy", "", SOURCE.format("path"), "numpy comes from `path`"),
        ("NumPy", "", SOURCE.format("path"), "NumPy comes from `path`"),
        ("numpy", "", '[tool.uv]\nfind-links = ["./wheels"]', "from the local folder ./wheels, which images cannot"),
        ("numpy >> 2", "", "", "its dependency 'numpy >> 2' is not valid"),
        ("numpy", 'requires-python = "new"', "", "requires-python = 'new' is not valid; write it as in"),
    ],
)
def test_packages_that_cannot_be_listed_with_hashes_are_refused_by_name(
    dependency: str, project: str, more: str, problem: str, make_app: MakeApp
) -> None:
    with pytest.raises(SettingError, match=problem) as refusal:
        AppManifest.read(make_app(dependency, project=project, more=more))
    assert "\n" not in str(refusal.value)


def test_a_source_of_a_package_that_the_app_does_not_use_does_not_matter(make_app: MakeApp) -> None:
    assert AppManifest.read(make_app("scipy", more=SOURCE.format("git")))


def test_dynamic_dependencies_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\ndynamic = ["dependencies"]\n'
        '[tool.flwr.app.components]\nserverapp = "x:app"\nclientapp = "x:app"\n'
    )
    with pytest.raises(SettingError, match="its dependencies are dynamic, so they are unknown; list them under"):
        AppManifest.read(tmp_path)
