import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bouquet.files import write_atomically, write_if_changed, write_users_file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_has_the_content_and_the_mode_that_it_was_written_with(tmp_path: Path, durable: bool) -> None:
    write_atomically(tmp_path / "file", b"content", durable=durable)
    write_atomically(tmp_path / "key", b"secret", 0o600, durable=durable)
    assert ((tmp_path / "file").read_bytes(), mode_of(tmp_path / "file")) == (b"content", 0o644)
    assert ((tmp_path / "key").read_bytes(), mode_of(tmp_path / "key")) == (b"secret", 0o600)


def test_a_replaced_file_has_the_new_content_and_mode_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"a longer old content", 0o644)
    write_atomically(tmp_path / "file", b"new", 0o600)
    assert ((tmp_path / "file").read_bytes(), mode_of(tmp_path / "file")) == (b"new", 0o600)
    assert names(tmp_path) == ["file"]


def test_a_relative_name_is_written_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomically("file", b"content")
    write_if_changed("file", b"changed")
    assert (tmp_path / "file").read_bytes() == b"changed"


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_failed_write_leaves_the_old_file_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write_atomically(tmp_path / "file", b"old")

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"new", durable=True)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    write_atomically(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_concurrent_readers_see_one_whole_content_while_several_threads_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = {bytes([letter]) * (200_000 + letter) for letter in b"abcd"}
    write_atomically(path, next(iter(contents)))
    done = threading.Event()
    torn: list[int] = []
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            content = path.read_bytes()
            seen.append(len(content))
            if content not in contents:
                torn.append(len(content))

    def write(content: bytes) -> None:
        for _ in range(40):
            write_atomically(path, content)

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert seen and not torn
    assert names(tmp_path) == ["file"]


def test_the_same_content_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_if_changed(path, b"content", 0o600)
    os.utime(path, (1, 1))
    before = path.stat()
    write_if_changed(path, b"content")
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino, after.st_mode) == (before.st_mtime_ns, before.st_ino, before.st_mode)


def test_other_content_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_if_changed(path, b"old")
    write_if_changed(path, b"new", 0o600)
    assert (path.read_bytes(), mode_of(path)) == (b"new", 0o600)


def test_a_users_file_that_is_a_link_stays_one_and_keeps_its_mode(tmp_path: Path) -> None:
    target, link = tmp_path / "dotfiles" / "config.toml", tmp_path / "config.toml"
    target.parent.mkdir()
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to("dotfiles/config.toml")
    os.umask(0o077)
    for mode in (0o600, 0o664):
        target.chmod(mode)
        write_users_file(link, b"new %o" % mode)
        assert link.is_symlink()
        assert (target.read_bytes(), mode_of(target)) == (b"new %o" % mode, mode)
    assert names(tmp_path) == ["config.toml", "dotfiles"]


def test_a_users_file_with_the_same_content_is_left_alone(tmp_path: Path) -> None:
    write_users_file(tmp_path / "file", b"content")
    before = (tmp_path / "file").stat()
    write_users_file(tmp_path / "file", b"content")
    assert (tmp_path / "file").stat().st_ino == before.st_ino


def test_a_link_of_the_users_that_leads_nowhere_yet_leads_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    write_users_file(tmp_path / "link", b"content", 0o640)
    assert (tmp_path / "link").is_symlink()
    assert mode_of(tmp_path / "folder" / "file") == 0o640
