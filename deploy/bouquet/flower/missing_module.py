"""Explains to a user of the fleet why a module of an app cannot be imported: the fleet has other packages."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

HINT = (
    "the fleet does not have it: add its package to `dependencies` in the app's pyproject.toml, then run the app with: "
    "bouquet run PATH"
)


def explain(error: BaseException) -> None:
    """Add to the text of an error that the fleet lacks a package, if that is its reason.

    Args:
        error: What an app raised. It changes if it says that a top-level module is missing, but not for a part of a
            package that is there.
    """
    if isinstance(error, ModuleNotFoundError) and error.name and not _exists(error.name.partition(".")[0]):
        error.msg = f"{error.msg}; {HINT}"


@contextmanager
def explains_missing_modules() -> Iterator[None]:
    """Explain the error of a missing module that is raised inside the block, or inside a decorated function."""
    try:
        yield
    except ModuleNotFoundError as error:
        explain(error)
        raise


def _exists(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # it is imported, and has no specification
        return True
