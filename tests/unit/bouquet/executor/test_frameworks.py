"""What is preloaded follows from the installed packages."""

import sys
from pathlib import Path

import pytest

from bouquet.executor import frameworks
from bouquet.executor.frameworks import FRAMEWORKS, to_preload


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment in which only the packages in this folder are installed; their import fails."""
    names = {framework.package for framework in FRAMEWORKS} | {"tensorflow", "jax"}
    for module in [module for module in sys.modules if module.partition(".")[0] in names]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def install(folder: Path, *packages: str) -> None:
    for package in packages:
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("raise AssertionError('imported')")


def test_an_environment_without_a_framework_preloads_nothing(installed: Path) -> None:
    assert to_preload({}) == ()


def test_a_framework_is_preloaded_with_what_it_imports_at_its_first_use(installed: Path) -> None:
    install(installed, "numpy", "torch")
    assert to_preload({}) == ("numpy", "torch", "torch._dynamo")


def test_jax_is_never_preloaded_because_its_threads_do_not_survive_a_fork(installed: Path) -> None:
    install(installed, "jax", "keras")
    assert to_preload({"KERAS_BACKEND": "jax"}) == ()


@pytest.mark.parametrize(
    ("backend", "packages", "preloaded"),
    [
        ("", ("keras",), False),
        ("", ("keras", "torch"), False),
        ("", ("keras", "tensorflow"), True),
        ("tensorflow", ("keras", "tensorflow"), True),
        ("torch", ("keras", "torch"), False),
        ("torch", ("keras", "tensorflow"), False),
        ("numpy", ("keras", "numpy"), False),
    ],
)
def test_keras_is_preloaded_only_with_tensorflow(
    backend: str, packages: tuple[str, ...], preloaded: bool, installed: Path
) -> None:
    install(installed, *packages)
    assert ("keras" in to_preload({"KERAS_BACKEND": backend})) == preloaded


def test_transformers_without_pytorch_has_no_models_to_preload(installed: Path) -> None:
    install(installed, "transformers")
    assert to_preload({}) == ()
    install(installed, "torch")
    assert "transformers.modeling_utils" in to_preload({})


def test_a_folder_of_that_name_is_no_package(installed: Path) -> None:
    (installed / "datasets").mkdir()
    assert to_preload({}) == ()


def test_the_environment_of_this_checkout_preloads_keras_and_the_datasets() -> None:
    assert {"numpy", "keras", "datasets", "flwr_datasets"} <= set(to_preload({}))


def test_each_framework_is_tested_for_a_fork() -> None:
    from tests.frameworks.cases import CASES

    assert {framework.package for framework in frameworks.FRAMEWORKS} == {
        package for case in CASES for package in case.preloads
    }
