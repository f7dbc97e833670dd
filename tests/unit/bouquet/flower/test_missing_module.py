"""A module that an app misses: its error says how to get it, and only if the fleet lacks its package."""

import importlib
import sys
from importlib.metadata import version
from types import ModuleType

import pytest

from bouquet.flower.missing_module import HINT, explain, explains_missing_modules


def raised(name: str) -> ModuleNotFoundError:
    with pytest.raises(ModuleNotFoundError) as missing:
        importlib.import_module(name)
    return missing.value


@pytest.mark.parametrize("name", ["no_such_package", "no_such_package.part"])
def test_a_missing_package_gets_a_hint_in_its_own_line(name: str) -> None:
    error = raised(name)
    explain(error)
    assert str(error) == f"No module named 'no_such_package'; {HINT}"
    assert "bouquet run PATH" in HINT


def test_a_missing_part_of_a_package_that_is_there_gets_none() -> None:
    error = raised("json.no_such_part")
    explain(error)
    assert str(error) == "No module named 'json.no_such_part'"


@pytest.mark.parametrize("line", ["import flwr.no_such_part", "from flwr.clientapp import NoSuchName"])
def test_a_part_of_flower_that_its_version_lacks_is_named_with_that_version(line: str) -> None:
    with pytest.raises(ImportError, match="NoSuchName|no_such_part") as missing, explains_missing_modules():
        exec(line)
    assert f"the fleet's Flower {version('flwr')} does not have it" in str(missing.value)


def test_other_errors_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "without_specification", ModuleType("without_specification"))
    for error in (ImportError("libfoo.so.1"), ValueError("boom"), ModuleNotFoundError("?")):
        before = str(error)
        explain(error)
        assert str(error) == before
    error = ModuleNotFoundError("odd", name="without_specification.part")
    explain(error)
    assert str(error) == "odd"


def test_an_error_inside_the_block_is_explained_and_raised_again() -> None:
    with pytest.raises(ModuleNotFoundError, match="bouquet run PATH"), explains_missing_modules():
        importlib.import_module("no_such_package")
