from pathlib import Path

import pytest

from bouquet.flower.message_files import LARGE_BYTES, MessageFiles


def test_a_later_process_reads_what_was_written(tmp_path: Path) -> None:
    MessageFiles(tmp_path).write("message", "a", b"first")
    MessageFiles(tmp_path).write("message", "a", b"second")
    assert MessageFiles(tmp_path).read("message", "a") == b"second"
    assert list(MessageFiles(tmp_path).names("message")) == ["a"]


def test_kinds_are_separate_and_a_missing_file_is_none(tmp_path: Path) -> None:
    files = MessageFiles(tmp_path)
    files.write("message", "a", b"")
    assert (files.read("object", "a"), list(files.names("object"))) == (None, [])
    files.remove("object", "a")
    files.remove("message", "a")
    assert list(files.names("message")) == []


@pytest.mark.parametrize("name", ["b.new", ".b.1234.new"])
def test_an_incomplete_file_does_not_count(tmp_path: Path, name: str) -> None:
    files = MessageFiles(tmp_path)
    files.write("message", "a", b"whole")
    (tmp_path / "message" / name).write_bytes(b"ha")
    assert list(MessageFiles(tmp_path).names("message")) == ["a"]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: memoryview) -> int:
        raise OSError(28, "No space left on device")

    files = MessageFiles(tmp_path)
    monkeypatch.setattr("os.write", full)
    with pytest.raises(OSError, match="No space"):
        files.write("object", "a", b"content")
    assert list((tmp_path / "object").iterdir()) == []


def test_large_files_are_in_a_folder_of_their_own_and_all_else_stays_the_same(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    files = MessageFiles(small, large)
    contents = {"a": b"x" * (LARGE_BYTES - 1), "b": b"x" * LARGE_BYTES}
    for name, content in contents.items():
        files.write("object", name, content)
    assert [file.name for folder in (small, large) for file in (folder / "object").iterdir()] == ["a", "b"]
    later = MessageFiles(small, large)
    assert list(later.names("object")) == ["a", "b"]
    assert {name: later.read("object", name) for name in contents} == contents
    for name in contents:
        later.remove("object", name)
    assert list(files.names("object")) == []
