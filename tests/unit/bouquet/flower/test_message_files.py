from pathlib import Path

import pytest

from bouquet.flower.message_files import MessageFiles


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
