"""What preloading changes for an app: modules of the same name, and variables that were read."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bouquet.executor.preload import Preload, Read
from bouquet.runtime.log import LOGGER


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed modules. What a test imports from it, or from an app, is forgotten afterwards."""
    folder = tmp_path / "library"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    return folder


def package(folder: Path, name: str, code: str = "") -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


def test_a_package_of_the_app_wins_over_a_preloaded_one_with_all_its_modules(
    library: Path, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(library, "models_")
    (library / "models_" / "resnet.py").write_text("")
    package(app, "models_", "MINE = True")
    preload = Preload()
    preload.load(["models_.resnet"])
    kept = sys.modules["models_"]
    with preload.loading(app):
        monkeypatch.syspath_prepend(str(app))
        import models_  # type: ignore[import-not-found]

        assert models_.MINE
        with pytest.raises(ImportError):
            import models_.resnet  # type: ignore[import-not-found]
    assert not hasattr(kept, "MINE"), "a module that has imported it keeps it"


def test_a_single_module_of_the_app_wins_over_a_preloaded_package(library: Path, app: Path) -> None:
    package(library, "six_")
    (app / "six_.py").write_text("")
    preload = Preload()
    preload.load(["six_"])
    assert preload.forget_shadowed(app) == {"six_": str(library / "six_" / "__init__.py")}
    assert "six_" not in sys.modules


def test_a_folder_without_init_is_no_package_and_an_installed_one_of_its_name_stays(library: Path, app: Path) -> None:
    package(library, "datasets_")
    (app / "datasets_").mkdir()
    (app / "datasets_" / "data.csv").write_text("")
    preload = Preload()
    preload.load(["datasets_"])
    assert preload.forget_shadowed(app) == {}
    assert "datasets_" in sys.modules


def test_modules_that_flower_imports_stay_as_in_a_stock_process(library: Path, app: Path) -> None:
    (app / "yaml.py").write_text("")
    (app / "sys.py").write_text("")
    import yaml

    preload = Preload()
    assert preload.forget_shadowed(app) == {}
    assert sys.modules["yaml"] is yaml


def test_an_app_may_have_a_package_with_our_name(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(app, "bouquet")
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    assert list(Preload().forget_shadowed(app)) == ["bouquet"]


def test_modules_that_come_from_the_app_already_stay(library: Path) -> None:
    package(library, "loaded_")
    preload = Preload()
    preload.load(["loaded_"])
    assert preload.forget_shadowed(library) == {}


@pytest.mark.parametrize(
    "look_up",
    [
        'os.environ.get("COLOUR_")',
        'os.getenv("COLOUR_")',
        '"COLOUR_" in os.environ',
        'os.environ.setdefault("COLOUR_", "")',
    ],
)
def test_a_variable_that_a_library_has_read_and_the_app_sets_is_reported(
    look_up: str, library: Path, app: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_", "1")
    (library / "painter_.py").write_text(f"import os\n{look_up}\n")
    preload = Preload()
    preload.load(["painter_"])
    monkeypatch.setattr(LOGGER, "propagate", True)
    with preload.loading(app):
        monkeypatch.setenv("COLOUR_", "secret")
        monkeypatch.setenv("OTHER_", "2")
    with preload.loading(app, report=False):
        monkeypatch.setenv("COLOUR_", "another")
    assert caplog.messages == [
        "The app sets COLOUR_ too late: painter_ read it before the app was loaded. Set COLOUR_ in the environment of "
        "the nodes, or set EXECUTOR_PRELOAD=none, so that the app imports painter_ itself"
    ]
    assert type(os.environ) is os._Environ


def test_a_variable_that_the_app_sets_to_what_was_read_is_not_reported(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKEND_", "tensorflow")
    (library / "chooser_.py").write_text('import os\nos.environ["BACKEND_"]\n')
    preload = Preload()
    preload.load(["chooser_"])
    assert preload.set_too_late({"BACKEND_": "jax"}) == {}
    monkeypatch.setenv("BACKEND_", "torch")
    assert preload.set_too_late({"BACKEND_": "tensorflow"}) == {"BACKEND_": Read("chooser_", "tensorflow")}
    assert preload.set_too_late({"BACKEND_": "torch"}) == {}, "it was set so before the app was loaded"


def test_a_variable_that_the_app_sets_to_the_default_of_the_library_is_not_reported(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    (library / "keras_.py").write_text('import os\nos.environ.get("KERAS_BACKEND")\n')
    preload = Preload()
    preload.load(["keras_"])
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert preload.set_too_late({}) == {}
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert preload.set_too_late({}) == {"KERAS_BACKEND": Read("keras_", None)}


def test_a_copy_of_all_variables_reads_none_of_them(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COPIED_", "1")
    code = "import os\nos.environ.copy(); dict(os.environ); {**os.environ}; list(os.environ.items())\n"
    (library / "copier_.py").write_text(code)
    preload = Preload()
    preload.load(["copier_"])
    monkeypatch.setenv("COPIED_", "2")
    assert preload.set_too_late({"COPIED_": "1"}) == {}


def test_what_native_code_reads_is_known_by_library(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "modules", {name: m for name, m in sys.modules.items() if name.partition(".")[0] != "torch"}
    )
    (library / "torch.py").write_text("")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    preload = Preload()
    preload.load(["torch"])
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert preload.set_too_late({"OMP_NUM_THREADS": "4"}) == {"OMP_NUM_THREADS": Read("torch", "4")}
