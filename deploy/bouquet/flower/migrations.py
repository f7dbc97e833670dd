"""The SuperLink's database in an environment whose path has a space or a comma in it.

Flower gives Alembic the folder of its migrations in an option that Alembic splits at spaces and commas. It then finds
no migrations, and the database gets no tables.
"""

from importlib import import_module
from typing import Any

from bouquet.flower.replacements import replace

_ALEMBIC = "flwr.supercore.state.alembic.utils"
_flower = import_module(_ALEMBIC)
_build_stock_config = _flower.build_alembic_config


def allow_any_path() -> None:
    """Make Alembic take the folder of Flower's migrations as one path. Call it before a database is opened."""
    replace(_ALEMBIC, "build_alembic_config", _build_config)


def _build_config(engine: Any) -> Any:
    config = _build_stock_config(engine)
    folders = [_flower.ALEMBIC_DIR / "versions", *_flower._version_locations]
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(map(str, folders)))
    return config
