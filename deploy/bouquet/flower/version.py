"""The one release of Flower that this package works with."""

from importlib.metadata import version

SUPPORTED = "1.34."


class FlowerChangedError(RuntimeError):
    """The installed Flower is not the release that this package was written against."""


def check_version() -> None:
    """Refuse any Flower but a 1.34 release.

    Raises:
        FlowerChangedError: Another release is installed.
    """
    if not (installed := version("flwr")).startswith(SUPPORTED):
        raise FlowerChangedError(
            f"flwr is {installed}, bouquet.flower was written against {SUPPORTED}x: install flwr==1.34.0, "
            "or set EXECUTOR=stock"
        )
