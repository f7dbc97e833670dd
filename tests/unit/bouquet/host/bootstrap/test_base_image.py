"""Which image to build on: the default if Docker or a registry has it, otherwise one built from Debian's packages."""

import os
import time
from pathlib import Path

import pytest

from bouquet.errors import HostError
from bouquet.host.bootstrap import base_image
from tests.unit.bouquet.conftest import Install


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def docker(*, has: str = "", pull: str = "exit 1") -> str:
    """Return a docker that has the image `has`, and whose `pull` does as told."""
    return f'case "$1" in image) [ "$3" = "{has}" ] ;; pull) {pull} ;; esac'


def test_an_image_that_docker_has_is_used_without_asking_a_registry(tmp_path: Path, install: Install) -> None:
    install(docker=docker(has="python:mine"))
    assert base_image.ensure("python:mine") == "python:mine"
    assert calls(tmp_path) == ["docker image inspect python:mine"]


def test_an_image_that_the_registry_has_is_pulled(tmp_path: Path, install: Install) -> None:
    install(docker=docker(pull="echo pulling; exit 0"))
    assert base_image.ensure("python:theirs") == "python:theirs"
    assert "docker pull python:theirs" in calls(tmp_path)


def test_without_a_registry_the_image_built_before_is_used(tmp_path: Path, install: Install) -> None:
    install(docker=docker(has=base_image.DEBIAN_IMAGE), mmdebstrap="exit 1")
    assert base_image.ensure() == base_image.DEBIAN_IMAGE
    assert not any(call.startswith("mmdebstrap") for call in calls(tmp_path))


def test_a_registry_that_does_not_answer_is_given_up_on(install: Install) -> None:
    install(docker=docker(has=base_image.DEBIAN_IMAGE, pull="exec /bin/sleep 60"))
    start = time.monotonic()
    assert base_image.ensure(registry_timeout=0.3) == base_image.DEBIAN_IMAGE
    assert time.monotonic() - start < 10


def test_a_download_that_has_begun_may_take_longer_than_the_registrys_timeout(install: Install) -> None:
    install(docker=docker(pull="echo pulling; /bin/sleep 3.5; exit 0"))
    assert base_image.ensure(registry_timeout=3) == base_image.DEFAULT


def test_without_a_registry_an_image_is_built_and_imported(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_image, "KEYRING", tmp_path)
    install(docker=docker(), mmdebstrap=f"/bin/cat > '{tmp_path}/sources'")
    assert base_image.ensure() == base_image.DEBIAN_IMAGE
    assert calls(tmp_path)[-1].endswith(f" {base_image.DEBIAN_IMAGE}")
    assert (tmp_path / "sources").read_text() == base_image.SOURCES


def test_the_last_line_of_mmdebstrap_is_the_error(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_image, "KEYRING", tmp_path)
    install(docker=docker(), mmdebstrap="echo I: working >&2; echo 'E: no network' >&2; exit 1")
    with pytest.raises(HostError, match="mmdebstrap: E: no network; set BASE_IMAGE"):
        base_image.ensure()


def test_a_host_without_mmdebstrap_and_without_root_is_told_what_to_install(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    install(docker=docker())
    with pytest.raises(HostError, match=r"no image registry answers for python:3.11-slim-bookworm, and mmdebstrap"):
        base_image.ensure()


def test_root_installs_mmdebstrap(tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(base_image, "KEYRING", tmp_path)
    made = tmp_path / "mmdebstrap"
    install(docker=docker(), **{"apt-get": f"echo '#!/bin/sh' > '{made}'; /bin/chmod +x '{made}'"})
    assert base_image.ensure() == base_image.DEBIAN_IMAGE
    assert any("install --yes --no-install-recommends mmdebstrap" in call for call in calls(tmp_path))


def test_only_signed_packages_go_in_and_the_hosts_ca_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle.crt"
    monkeypatch.setattr(base_image, "CA_BUNDLE", bundle)
    assert not any("customize-hook" in word for word in base_image.mmdebstrap_command(tmp_path / "tar"))
    bundle.touch()
    command = base_image.mmdebstrap_command(tmp_path / "tar")
    upload = command.index(f"--customize-hook=upload {bundle} {bundle}")
    assert command[upload + 1] == f'--customize-hook=chmod 0644 "$1{bundle}"'  # for the containers' user
    assert all(f"signed-by={base_image.KEYRING}" in source for source in base_image.SOURCES.splitlines())
