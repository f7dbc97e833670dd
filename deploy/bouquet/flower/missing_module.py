"""Explains why a module of an app cannot be imported: the fleet has other packages, or another Flower."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec

HINT = (
    "the fleet does not have it: add its package to `dependencies` in the app's pyproject.toml, then run the app with: "
    "bouquet run PATH"
)
OTHER_FLOWER = f"the fleet's Flower {version('flwr')} does not have it: change the app's import to one of this version"


def explain(error: BaseException) -> None:
    """Add to the text of an error that the fleet lacks a package or has another Flower, if that is its reason.

    Args:
        error: What an app raised. It changes if it says that a top-level module is missing, or a part of Flower, but
            not for a part of another package that is there.
    """
    if not isinstance(error, ImportError) or not error.name:
        return
    package = error.name.partition(".")[0]
    if package == "flwr":
        error.msg = f"{error.msg}; {OTHER_FLOWER}"
    elif isinstance(error, ModuleNotFoundError) and not _exists(package):
        error.msg = f"{error.msg}; {HINT}"


@contextmanager
def explains_missing_modules() -> Iterator[None]:
    """Explain the error of a missing module that is raised inside the block."""
    try:
        yield
    except ImportError as error:
        explain(error)
        raise


def _exists(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # it is imported, and has no specification
        return True
