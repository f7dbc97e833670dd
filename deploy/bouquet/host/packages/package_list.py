"""The list of packages that a fleet needs for one app."""

from dataclasses import dataclass
from pathlib import Path

from bouquet.settings.host import HostSettings


@dataclass(frozen=True)
class PackageList:
    """A requirements list with hashes: the app's packages, and Bouquet's own for every image.

    Attributes:
        path: The list. Its name is `requirements.txt`, and nothing else is in its folder.
        digest: 12 hex digits of the SHA-256 of its content.
        names: The names of all packages, normalized as on PyPI: `scikit-learn`.
        app: The app's folder.
    """

    path: Path
    digest: str
    names: frozenset[str]
    app: Path


def package_list(app: Path, settings: HostSettings, *, gpus: bool) -> PackageList:
    """Return the packages of an app; the same inputs give the identical list, without a network.

    Args:
        app: The app's folder.
        settings: The settings: BOUQUET_HOME, where lists are kept.
        gpus: Whether the fleet's nodes compute on GPUs.

    Raises:
        SettingError: The folder has no Flower App, or the fleet cannot run the app.
        HostError: A package cannot be had.
    """
    raise NotImplementedError
