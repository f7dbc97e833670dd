"""Docker and its plugins."""

from pathlib import Path

import pytest

from bouquet.errors import HostError
from bouquet.host.bootstrap import compose_plugin
from bouquet.host.checks.docker_engine import compose, docker
from tests.unit.bouquet.conftest import Install


def test_a_docker_that_does_not_answer_fails_with_its_own_message(install: Install) -> None:
    install(docker="echo 20.10.24")
    assert docker() == "20.10.24 answers"
    install(docker="echo 'permission denied' >&2; exit 1")
    with pytest.raises(HostError, match="permission denied; start Docker"):
        docker()


def test_a_missing_compose_fails_only_where_make_cannot_install_it(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(docker="exit 0")
    assert compose() == "v2 and buildx found"
    monkeypatch.setattr(compose_plugin, "KEYRING", tmp_path / "docker")
    install(docker="exit 1", dpkg="", **{"apt-get": ""})
    assert "docker-compose and docker-buildx missing: `make up` installs them from Debian" in compose()
    (tmp_path / "apt-get").unlink()
    with pytest.raises(HostError, match=r"cannot download from Debian \(apt-get missing\); install Docker Compose"):
        compose()
