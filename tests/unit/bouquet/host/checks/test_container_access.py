"""What the containers' user cannot read is refused before the start, with path, mode and fix."""

import os
import struct
from pathlib import Path

import pytest

from bouquet.errors import SettingError
from bouquet.host.checks.container_access import (
    ACL,
    CONTAINER_UID,
    check_readable_by_containers,
    files_of_the_host,
    is_readable_by_containers,
)
from bouquet.settings.host import HostSettings


def file(path: Path, mode: int) -> Path:
    path.write_text("hf_secret")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("mode", "readable"), [(0o600, False), (0o640, False), (0o604, True), (0o644, True), (0o444, True), (0o000, False)]
)
def test_a_file_of_another_user_must_be_readable_for_everyone(mode: int, readable: bool, tmp_path: Path) -> None:
    assert is_readable_by_containers(file(tmp_path / "token", mode)) is readable


@pytest.mark.parametrize(("mode", "readable"), [(0o700, False), (0o704, False), (0o701, False), (0o705, True)])
def test_a_folder_must_be_open_to_enter_and_to_list(mode: int, readable: bool, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(mode)
    assert is_readable_by_containers(tmp_path / "folder") is readable


@pytest.mark.parametrize(("granted", "mask", "readable"), [(4, 4, True), (4, 0, False), (0, 4, False)])
def test_an_access_control_list_counts(granted: int, mask: int, readable: bool, tmp_path: Path) -> None:
    entries = ((1, 6, 2**32 - 1), (2, granted, CONTAINER_UID), (4, 0, 2**32 - 1), (16, mask, 2**32 - 1))
    path = file(tmp_path / "token", 0o600)
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in (*entries, (32, 0, 2**32 - 1)))
    try:
        os.setxattr(path, ACL, value)
    except OSError as error:
        pytest.skip(f"this file system has no access control lists ({error.strerror})")
    assert is_readable_by_containers(path) is readable


def test_a_token_that_containers_cannot_read_is_refused_with_path_mode_and_fix(tmp_path: Path) -> None:
    token = file(tmp_path / "token", 0o600)
    with pytest.raises(SettingError) as refused:
        files_of_the_host(HostSettings.read({"HF_TOKEN_FILE": str(token)}))
    assert refused.value.message == (
        f"HF_TOKEN_FILE={token}: the containers' user, uid 49999, cannot read it (mode -rw-------)"
    )
    assert f"setfacl -m u:49999:r '{token}'" in refused.value.hint
    assert f"chmod o+r '{token}'" in refused.value.hint
    token.chmod(0o644)
    assert (
        files_of_the_host(HostSettings.read({"HF_TOKEN_FILE": str(token)})) == "readable in containers: HF_TOKEN_FILE"
    )


def test_a_private_key_that_containers_cannot_read_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name, mode in (("ca.crt", 0o644), ("server.pem", 0o644), ("server.key", 0o600)):
        file(tmp_path / name, mode)
    with pytest.raises(SettingError, match=r"CERTIFICATES=.*/server\.key: the containers' user"):
        files_of_the_host(HostSettings.read({"CERTIFICATES": str(tmp_path)}))


def test_a_folder_is_refused_with_the_permission_to_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(SettingError, match=r"mode drwx------\); .*chmod o\+rx"):
        check_readable_by_containers("CERTIFICATES", tmp_path)


def test_without_such_files_there_is_nothing_to_check() -> None:
    assert files_of_the_host(HostSettings.read({})) == "none are set"


def test_a_ca_file_that_is_missing_is_refused_by_name_before_docker_does() -> None:
    with pytest.raises(SettingError, match=r"SSL_CERT_FILE=/no/such\.pem: there is no such file; correct it, or"):
        files_of_the_host(HostSettings.read({}), {"SSL_CERT_FILE": "/no/such.pem"})
