"""A fleet has the packages of its app, and only those; the second start needs no network and changes nothing."""

from pathlib import Path

import pytest

from tests.e2e.conftest import APPS, Bouquet, StartFleet

DEAD_PROXY = "http://127.0.0.1:9"
FIND = "import importlib.util; print([importlib.util.find_spec(name) is not None for name in ('flwr', 'tensorflow')])"


def members(fleet: Bouquet) -> list[str]:
    """What identifies the fleet's members: another start of one has another id."""
    if fleet.kind == "containers":
        return sorted(str(container.id) for container in fleet.compose.ps())
    home = fleet.folder / "bouquet" / "processes"
    return [(home / "supervisor.lock").read_text(), (home / "plan.json").read_text()]


@pytest.mark.parametrize("kind", ["processes", "containers"])
def test_an_app_without_tensorflow_gets_a_fleet_without_it_which_an_edit_of_its_code_leaves_as_it_is(
    kind: str, start_fleet: StartFleet, tmp_path: Path
) -> None:
    app = tmp_path / "my app"
    app.mkdir()
    (app / "pyproject.toml").write_bytes((APPS / "noop" / "pyproject.toml").read_bytes())
    with start_fleet(kind, tmp_path, SUPERNODES="1", EXECUTOR_PRELOAD="flwr", APP=str(app)) as fleet:
        if kind == "containers":
            found = str(fleet.compose.execute("supernode", ["python", "-P", "-c", FIND], tty=False))
            assert found.strip() == "[True, False]"
        before = members(fleet)
        (app / "server_app.py").write_text("print('edited')\n")
        done = fleet("up", UV_OFFLINE="1", HTTPS_PROXY=DEAD_PROXY, UV_CACHE_DIR=str(tmp_path / "empty"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert members(fleet) == before
