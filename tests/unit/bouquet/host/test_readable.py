"""Whether the fleet can read the user's files: modes, links, and who reads."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from bouquet.errors import SettingError
from bouquet.host.readable import CONTAINER_UID, Reader, check_readable

CONTAINERS = Reader(in_container=True)
PROCESSES = Reader(in_container=False)
FILE = "plain_text/train-0.parquet"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset that everyone can read, in a folder that only its owner can enter."""
    folder = tmp_path / "private" / "data"
    (folder / "plain_text").mkdir(parents=True)
    (folder / FILE).touch()
    for path in (folder, folder / "plain_text"):
        path.chmod(0o755)
    (folder / FILE).chmod(0o644)
    folder.parent.chmod(0o700)
    return folder


def check(folder: Path, reader: Reader = CONTAINERS) -> None:
    check_readable("DATASET", folder, reader, "*.parquet")


def test_a_readable_folder_passes_whatever_the_modes_of_the_folders_above(data: Path) -> None:
    check(data)
    check(data, PROCESSES)


@pytest.mark.parametrize(
    ("path", "mode"),
    [(".", 0o700), ("plain_text", 0o750), ("plain_text", 0o754), (FILE, 0o600), (FILE, 0o640)],
)
def test_an_unreadable_file_or_folder_on_the_way_is_refused_with_path_mode_and_fix(
    data: Path, path: str, mode: int
) -> None:
    (data / path).chmod(mode)
    with pytest.raises(SettingError) as refused:
        check(data)
    assert str(refused.value) == (
        f"DATASET={data}: the containers' user (uid {CONTAINER_UID}) cannot read {data / path} (mode {mode:04o}); "
        f"let all users read it: chmod -R a+rX {data}"
    )


def test_files_that_are_not_read_may_be_private(data: Path) -> None:
    (data / "lost+found").mkdir(mode=0o700)
    (data / "notes.txt").touch(mode=0o600)
    check(data)
    with pytest.raises(SettingError, match="notes.txt"):
        check_readable("DATASET", data, CONTAINERS)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_the_containers_user_and_group_pass(data: Path) -> None:
    os.chown(data / FILE, CONTAINER_UID, 0)
    (data / FILE).chmod(0o400)
    check(data)
    os.chown(data / FILE, 0, CONTAINER_UID)
    (data / FILE).chmod(0o640)
    check(data)
    (data / FILE).chmod(0o404)  # the group's bits count, not the others'
    with pytest.raises(SettingError, match="mode 0404"):
        check(data)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_where_docker_maps_uids_a_mapped_owner_may_be_the_containers_user(data: Path) -> None:
    rootless = Reader(in_container=True, maps_uids=True)
    (data / FILE).chmod(0o600)
    os.chown(data / FILE, 100000 + CONTAINER_UID - 1, 100000)
    check(data, rootless)
    os.chown(data / FILE, 1000, 1000)  # no uid in a container is mapped to a user's own
    with pytest.raises(SettingError, match="mode 0600"):
        check(data, rootless)


def test_modes_do_not_count_in_docker_desktop_but_links_do(data: Path) -> None:
    desktop = Reader(in_container=True, modes_apply=False)
    (data / FILE).chmod(0o600)
    check(data, desktop)
    (data / "train-1.parquet").symlink_to("/elsewhere")
    with pytest.raises(SettingError, match="leads out of the folder"):
        check(data, desktop)


def test_an_access_control_list_may_grant_more_than_the_mode(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / FILE).chmod(0o640)
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"\x02")
    check(data)


@pytest.fixture
def snapshot(data: Path) -> Path:
    """A snapshot in the hub's cache: its files are links to blobs beside it."""
    blob = data.parent / "blobs" / "train"
    blob.parent.mkdir()
    shutil.move(data / FILE, blob)
    (data / FILE).symlink_to("../../blobs/train")
    return data


def test_a_link_that_leads_out_of_the_folder_is_refused_for_containers(snapshot: Path) -> None:
    with pytest.raises(SettingError) as refused:
        check(snapshot)
    assert str(refused.value) == (
        f"DATASET={snapshot}: the link {snapshot / FILE} leads out of the folder, to ../../blobs/train: "
        f"inside a container it leads nowhere; give a copy without links: cp -rL {snapshot} COPY; DATASET=COPY"
    )


def test_processes_follow_links_and_a_broken_one_is_refused(snapshot: Path) -> None:
    check(snapshot, PROCESSES)
    shutil.rmtree(snapshot.parent / "blobs")
    with pytest.raises(SettingError, match=r"leads to \.\./\.\./blobs/train, which does not exist"):
        check(snapshot, PROCESSES)


def test_links_within_the_folder_pass_and_absolute_ones_do_not(data: Path) -> None:
    (data / "train-1.parquet").symlink_to(FILE)
    (data / "plain_text" / "train-2.parquet").symlink_to("../train-1.parquet")
    check(data)
    (data / "train-3.parquet").symlink_to(data / FILE)
    with pytest.raises(SettingError, match="train-3.parquet leads out of the folder"):
        check(data)


def test_a_linked_folder_counts_too(data: Path) -> None:
    outside = data.parent / "outside"
    shutil.move(data / "plain_text", outside)
    (data / "plain_text").symlink_to(outside)
    with pytest.raises(SettingError, match=f"the link {data / 'plain_text'} leads out of the folder"):
        check(data)
    check(data, PROCESSES)


def test_a_secret_stays_private(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch()
    token.chmod(0o600)
    with pytest.raises(
        SettingError, match=rf"HF_TOKEN_FILE=.*mode 0600.*sudo chgrp {CONTAINER_UID} {token}; sudo chmod"
    ):
        check_readable("HF_TOKEN_FILE", token, CONTAINERS, secret=True)


def test_a_folder_that_the_current_user_cannot_list_is_refused_unless_it_is_not_read(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name in ("hidden", "lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (data / "lost+found").mkdir(mode=0o700)
    (data / "hidden").mkdir(mode=0o700)
    check(data)
    with pytest.raises(SettingError, match=r"cannot read .*hidden \(mode 0700\)"):
        check_readable("DATASET", data, CONTAINERS)
    (data / "hidden").rmdir()
    check_readable("DATASET", data, CONTAINERS)


def test_an_empty_folder_must_be_readable_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(SettingError, match="mode 0700"):
        check(tmp_path)


def test_one_file_of_a_folder_may_be_meant(data: Path) -> None:
    for path, mode in ((data / "server.key", 0o644), (data / "plain_text" / "server.key", 0o600)):
        path.touch()
        path.chmod(mode)  # whatever the umask is
    check_readable("CERTIFICATES", data, CONTAINERS, "server.key")
    check_readable("CERTIFICATES", data, CONTAINERS, "missing.key")  # what is missing is another check's
    (data / "server.key").chmod(0o600)
    with pytest.raises(SettingError, match="server.key"):
        check_readable("CERTIFICATES", data, CONTAINERS, "server.key")
