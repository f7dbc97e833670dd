"""The versions in metrics.json are those of the app's own packages."""

import platform
from importlib.metadata import version
from pathlib import Path

from bouquet.record.versions import package_versions


def app_with(tmp_path: Path, content: str) -> Path:
    (tmp_path / "pyproject.toml").write_text(content)
    return tmp_path


def test_the_packages_that_the_app_names_are_listed_and_others_are_not(tmp_path: Path) -> None:
    app = app_with(
        tmp_path,
        '[project]\ndependencies = ["flwr[simulation]>=1.29", "numpy>=1; python_version>\'3\'", "not-there==1", ""]\n',
    )
    assert package_versions(app) == {
        "python": platform.python_version(),
        "flwr": version("flwr"),
        "numpy": version("numpy"),
    }


def test_tensorflows_wheel_for_the_cpu_is_listed_as_tensorflow(tmp_path: Path) -> None:
    app = app_with(tmp_path, '[project]\ndependencies = ["tensorflow-cpu"]\n')
    assert package_versions(app)["tensorflow"] == version("tensorflow-cpu")


def test_an_app_whose_packages_are_unknown_has_the_versions_of_python_and_flower(tmp_path: Path) -> None:
    for content in ("", "[project]\n", "not toml"):
        assert package_versions(app_with(tmp_path, content)).keys() == {"python", "flwr"}
    assert package_versions(tmp_path / "missing").keys() == {"python", "flwr"}
