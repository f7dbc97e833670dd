"""The FAB of an app: what `flwr build` packs, and `flwr run` submits."""

from pathlib import Path

from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import load_and_validate


def build_fab(app: Path) -> bytes:
    """Return the FAB of an app, a zip file. The same files give the same bytes.

    Args:
        app: The app's folder.

    Raises:
        ValueError: Flower does not accept the app; the message says why.
    """
    try:
        load_and_validate(app / "pyproject.toml")
        return build_fab_from_disk(app)
    except Exception as error:  # Flower raises several kinds, click's own among them
        raise ValueError(" ".join(str(error).split())) from error
