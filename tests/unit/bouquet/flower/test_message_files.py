from pathlib import Path

import pytest

from bouquet.flower.message_files import MessageFiles


def test_what_was_written_is_read_by_whoever_comes_after(tmp_path: Path) -> None:
    MessageFiles(tmp_path).write("message", "a", b"first")
    MessageFiles(tmp_path).write("message", "a", b"second")
    assert MessageFiles(tmp_path).read("message", "a") == b"second"
    assert list(MessageFiles(tmp_path).names("message")) == ["a"]


def test_kinds_are_apart_and_what_is_not_there_is_none(tmp_path: Path) -> None:
    spool = MessageFiles(tmp_path)
    spool.write("message", "a", b"")
    assert (spool.read("object", "a"), list(spool.names("object"))) == (None, [])
    spool.remove("object", "a")
    spool.remove("message", "a")
    assert list(spool.names("message")) == []


def test_a_file_that_was_not_written_to_its_end_does_not_count(tmp_path: Path) -> None:
    spool = MessageFiles(tmp_path)
    spool.write("message", "a", b"whole")
    (tmp_path / "message" / "b.new").write_bytes(b"ha")
    assert list(MessageFiles(tmp_path).names("message")) == ["a"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: memoryview) -> int:
        raise OSError(28, "No space left on device")

    spool = MessageFiles(tmp_path)
    monkeypatch.setattr("os.write", full)
    with pytest.raises(OSError, match="No space"):
        spool.write("object", "a", b"content")
    assert list((tmp_path / "object").iterdir()) == []
