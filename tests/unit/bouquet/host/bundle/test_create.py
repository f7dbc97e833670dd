"""What `bouquet bundle` writes."""

import errno
import re
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bouquet.errors import HostError, SettingError
from bouquet.host.bundle import contents, create
from bouquet.host.bundle.contents import Description
from bouquet.host.bundle.tar_writer import TarWriter
from bouquet.settings.host import PROJECT
from tests.unit.bouquet.host.bundle.conftest import DESCRIPTION, FakeDocker, WriteBundle


def read(bundle: Path, name: str) -> bytes:
    with tarfile.open(bundle) as tar:
        file = tar.extractfile(f"numpy-mean-1.0.0/{name}")
        assert file is not None
        return file.read()


def names(bundle: Path) -> list[str]:
    with tarfile.open(bundle) as tar:
        return [member.name.removeprefix("numpy-mean-1.0.0/") for member in tar]


def test_a_bundle_has_the_app_the_packages_and_the_images_under_a_tag_of_their_own(
    docker: FakeDocker, write_bundle: WriteBundle
) -> None:
    bundle = write_bundle()
    assert read(bundle, contents.APP) == b"the app"
    assert read(bundle, contents.PACKAGES) == b"numpy==2.4\n"
    assert zlib.decompress(read(bundle, contents.IMAGES), wbits=31) == (docker.folder / "images").read_bytes()
    both = "bouquet-superlink:bundle-0123456789ab bouquet-supernode:bundle-0123456789ab"
    assert f"save {both}" in docker.asked()
    assert docker.asked()[-1] == f"image rm {both}"


def test_a_tag_that_this_docker_had_before_stays(docker: FakeDocker, write_bundle: WriteBundle) -> None:
    docker.set(loaded="")
    write_bundle()
    assert not [line for line in docker.asked() if line.startswith("image rm")]


def test_all_that_compose_mounts_by_default_is_in_the_bundle(write_bundle: WriteBundle) -> None:
    text = (PROJECT / "docker-compose.yml").read_text(encoding="utf-8")
    mounted = set(re.findall(r"\$\{\w+:-\./([^}]+)\}", text))
    assert mounted
    assert yaml.safe_load(read(write_bundle(), contents.COMPOSE_FILE)) == yaml.safe_load(text)
    found = names(write_bundle())
    for path in mounted:
        assert any(name == path or name.startswith(f"{path}/") for name in found), path


def test_every_file_but_the_settings_has_a_checksum(write_bundle: WriteBundle) -> None:
    bundle = write_bundle()
    listed = [line.partition("  ")[2] for line in read(bundle, contents.CHECKSUMS).decode().splitlines()]
    with tarfile.open(bundle) as tar:
        files = {member.name.removeprefix("numpy-mean-1.0.0/") for member in tar if member.isfile()}
    assert files - set(listed) == {contents.SETTINGS, contents.CHECKSUMS}


def test_links_within_a_cache_stay_links_and_others_become_files(tmp_path: Path, write_bundle: WriteBundle) -> None:
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    (cache / "hub").mkdir(parents=True)
    (cache / "hub" / "blob").write_text("blob")
    (cache / "hub" / "model").symlink_to("blob")
    outside.write_text("outside")
    (cache / "hub" / "other").symlink_to(outside)
    (cache / "hub" / "blob.lock").touch()
    with tarfile.open(write_bundle(cache)) as tar:
        folder = "numpy-mean-1.0.0/hf-cache/hub"
        assert tar.getmember(f"{folder}/model").linkname == "blob"
        assert tar.getmember(f"{folder}/other").isfile()
        assert f"{folder}/blob.lock" not in tar.getnames()
    assert read(tmp_path / "numpy.bundle.tar", "hf-cache/hub/other") == b"outside"
    assert b"HF_CACHE='./hf-cache'" in read(tmp_path / "numpy.bundle.tar", contents.SETTINGS)


def test_a_folder_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="is not a Hugging Face cache; give a folder that has"):
        create.check_cache(tmp_path)


def test_settings_of_the_app_travel_and_those_of_this_machine_stay() -> None:
    here = {"SUPERNODES": "4", "NODE_CONFIG": 'site="north"', "CONTROL_PORT": "9193", "HF_TOKEN_FILE": "/t", "TAG": "x"}
    text = create.settings_file(replace(DESCRIPTION, images_for="gpu"), here, has_cache=False)
    assert text.splitlines()[1:] == [
        "COMPOSE_PROJECT_NAME='bouquet-numpy-mean'",
        "TAG='bundle-0123456789ab'",
        "HF_HUB_OFFLINE='1'",
        "COMPOSE_FILE='docker-compose.yml:deploy/compose/gpu.yml'",
        "SUPERNODES='4'",
        "NODE_CONFIG='site=\"north\"'",
    ]


def test_a_setting_that_the_file_cannot_hold_is_refused() -> None:
    with pytest.raises(SettingError, match="NODE_CONFIG=site='north': a bundle cannot have"):
        create.settings_file(DESCRIPTION, {"NODE_CONFIG": "site='north'"}, has_cache=False)


def test_a_bundle_that_was_not_finished_leaves_the_earlier_one_and_no_rest(
    docker: FakeDocker, write_bundle: WriteBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_bundle()
    before = bundle.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TarWriter, "close", full)
    with pytest.raises(SettingError, match=r"cannot be written \(No space left on device\); free some space"):
        write_bundle()
    assert bundle.read_bytes() == before
    assert [path.name for path in bundle.parent.iterdir() if path.name.startswith(".")] == []


def test_a_file_that_is_no_bundle_is_not_replaced(tmp_path: Path, write_bundle: WriteBundle) -> None:
    (tmp_path / "numpy.bundle.tar").write_text("my notes")
    with pytest.raises(SettingError, match="there is something else than a bundle"):
        write_bundle()
    assert (tmp_path / "numpy.bundle.tar").read_text() == "my notes"


def test_a_token_beside_the_data_stays_here_and_linked_data_travels(tmp_path: Path, write_bundle: WriteBundle) -> None:
    cache, data = tmp_path / "cache", tmp_path / "data"
    cache.mkdir()
    data.mkdir()
    (cache / "token").write_text("secret")
    (data / "file").write_text("rows")
    (cache / "datasets").symlink_to(data)
    with tarfile.open(write_bundle(cache)) as tar:
        names = [name for name in tar.getnames() if "/hf-cache/" in name]
    assert names == ["numpy-mean-1.0.0/hf-cache/datasets/file"]


def test_data_behind_a_link_out_of_the_cache_is_refused(tmp_path: Path, write_bundle: WriteBundle) -> None:
    (tmp_path / "cache" / "hub").mkdir(parents=True)
    (tmp_path / "cache" / "hub" / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(SettingError, match="elsewhere: is a link out of the cache; copy the cache without links"):
        write_bundle(tmp_path / "cache")


def test_a_tar_file_that_is_no_bundle_is_not_replaced_and_a_folder_must_exist(tmp_path: Path) -> None:
    backup = tmp_path / "backup.tar"
    with tarfile.open(backup, "w") as tar:
        tar.add(PROJECT / "README.md", "README.md")
    with pytest.raises(SettingError, match="there is something else than a bundle"):
        create.check_output(backup)
    with pytest.raises(SettingError, match="there is no folder"):
        create.check_output(tmp_path / "missing" / "app.tar")
    create.check_output(tmp_path / "new.tar")


def test_a_bundle_is_described_by_the_app_and_the_content_of_the_images(docker: FakeDocker) -> None:
    found = create.describe(PROJECT / "tests" / "apps" / "numpy_mean", "mine", gpus=False)
    assert (found.name, found.version, found.platform) == ("numpy-mean", "1.0.0", "linux/amd64")
    assert re.fullmatch(r"bundle-[0-9a-f]{12}", found.tag)
    assert Description.parse(found.text()) == found
    assert str(create.default_output(PROJECT / "tests" / "apps" / "numpy_mean")) == "numpy-mean-1.0.0.bundle.tar"


def test_an_app_without_a_version_is_refused(docker: FakeDocker, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "app"\n')
    with pytest.raises(SettingError, match=r"has no name and version; add them under \[project\]"):
        create.describe(tmp_path, "mine", gpus=False)


def test_images_that_docker_does_not_have_are_an_error(docker: FakeDocker, write_bundle: WriteBundle) -> None:
    docker.set(docker='#!/bin/sh\necho "No such image" >&2\nexit 1')
    with pytest.raises(HostError, match="docker tag failed: No such image"):
        write_bundle()
