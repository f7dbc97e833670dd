"""A `docker` command that has two images, and writes down what it was asked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bouquet.host.bundle import contents, create
from bouquet.host.bundle.contents import Description

DOCKER = """#!/bin/sh
echo "$*" >>{folder}/asked
case "$*" in
    "version --format"*) cat {folder}/platform ;;
    "image inspect --format"*) printf 'sha256:1\\nsha256:2\\n' ;;
    "image inspect"*) test -e {folder}/loaded ;;
    save*) cat {folder}/images ;;
    "load --quiet --input"*) touch {folder}/loaded ;;
    load*) cat >{folder}/loaded ;;
    "compose up"*) exit "$(cat {folder}/up)" ;;
    "compose run"*) cat >{folder}/submitted; echo 'the log' >&2; echo 7; exit "$(cat {folder}/outcome)" ;;
    "compose ps"*) echo abc ;;
    cp*) mkdir -p "$3/7" ;;
esac
"""
DESCRIPTION = Description("numpy-mean", "1.0.0", "linux/amd64", "bundle-0123456789ab", "cpu", "0.1.0")


@dataclass
class FakeDocker:
    folder: Path

    def asked(self) -> list[str]:
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []

    def set(self, **values: object) -> None:
        for name, value in values.items():
            (self.folder / name).write_bytes(value if isinstance(value, bytes) else f"{value}\n".encode())


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    folder = tmp_path / "docker"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER.format(folder=folder))
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    for name in contents.TRAVELLING:
        monkeypatch.delenv(name, raising=False)
    fake = FakeDocker(folder)
    fake.set(platform="linux/amd64", images=bytes(range(256)) * 10_000, up=0, outcome=0)
    return fake


WriteBundle = Callable[..., Path]


@pytest.fixture
def write_bundle(docker: FakeDocker, tmp_path: Path) -> WriteBundle:
    """Write a bundle, with a cache if its folder is given."""

    def write(cache: Path | None = None, fab: bytes = b"the app") -> Path:
        path = tmp_path / "numpy.bundle.tar"
        create.write_bundle(path, DESCRIPTION, fab, b"numpy==2.4\n", "mine", cache)
        return path

    return write
