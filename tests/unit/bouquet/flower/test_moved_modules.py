"""An app that imports a module which Flower has moved finds it at the old place."""

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

import pytest

from bouquet.flower.moved_modules import MOVED, find_moved_modules


@pytest.fixture(autouse=True)
def imports_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    for name in MOVED:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("old", MOVED)
def test_flower_lacks_the_old_module_and_has_the_new_one(old: str) -> None:
    assert find_spec(old) is None  # if Flower has it again, remove it from the list
    assert find_spec(MOVED[old]) is not None


@pytest.mark.parametrize("old", MOVED)
def test_the_old_name_has_what_the_new_module_has_and_the_log_says_so(
    old: str, caplog: pytest.LogCaptureFixture
) -> None:
    find_moved_modules()
    find_moved_modules()
    found, new = import_module(old), import_module(MOVED[old])
    import_module(old)
    assert found.Mod is new.Mod
    assert new.__spec__ is not None
    assert new.__spec__.name == MOVED[old]
    assert caplog.text.count(f"{old} is {MOVED[old]} in Flower") == 1


def test_other_missing_modules_are_missing() -> None:
    find_moved_modules()
    with pytest.raises(ModuleNotFoundError, match=r"flwr\.client\.no_such_part"):
        import_module("flwr.client.no_such_part")
