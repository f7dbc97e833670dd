"""Put something of ours in the place of a name in one of Flower's modules."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

SUPPORTED = "1.34."


class FlowerChangedError(RuntimeError):
    """Flower is not the release that this package was written against."""


def check_version() -> None:
    """Raise `FlowerChangedError` unless the installed Flower is a 1.34 release."""
    if not (installed := version("flwr")).startswith(SUPPORTED):
        raise FlowerChangedError(
            f"flwr is {installed}, deploy/flower was written against {SUPPORTED}x: install flwr==1.34.0, "
            "or set EXECUTOR=stock"
        )


def replace(module: str, name: str, replacement: Any) -> Any:
    """Set `name` in the module, which must have it, and return what was there.

    The module goes by its name: several of Flower's packages export a function named like the module it is from,
    which hides the module from `from ... import`.
    """
    target = import_module(module)
    if not hasattr(target, name):
        raise FlowerChangedError(f"{module} no longer has `{name}`")
    original = getattr(target, name)
    setattr(target, name, replacement)
    return original
