"""The SuperLink's database where the path of the environment has spaces."""

import shutil
from importlib import import_module
from pathlib import Path

import pytest

from bouquet.flower import migrations

ALEMBIC = "flwr.supercore.state.alembic.utils"


@pytest.mark.parametrize("fixed", [False, True])
def test_a_database_gets_its_tables_when_the_path_of_flower_has_a_space_and_a_comma(
    fixed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import create_engine, inspect

    flower = import_module(ALEMBIC)
    folder = tmp_path / "home of é, 2" / "alembic"
    shutil.copytree(flower.ALEMBIC_DIR, folder)
    monkeypatch.setattr(flower, "ALEMBIC_DIR", folder)
    monkeypatch.setattr(flower, "build_alembic_config", migrations._build_stock_config)
    if fixed:
        migrations.allow_any_path()
    engine = create_engine(f"sqlite:///{tmp_path / 'state.db'}")
    flower.run_migrations(engine)
    assert ("run" in inspect(engine).get_table_names()) == fixed  # if this fails unfixed: Flower has fixed it
