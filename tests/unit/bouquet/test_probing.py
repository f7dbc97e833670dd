"""Questions to other programs: an answer, or one line within the timeout."""

import time
from pathlib import Path

import pytest

from bouquet.errors import HostError
from bouquet.probing import probe
from tests.unit.bouquet.conftest import Install


def test_the_answer_has_exit_code_and_output(install: Install) -> None:
    install(tool="echo out; echo err >&2; exit 3")
    answer = probe(["tool", "version"], "install it")
    assert (answer.returncode, answer.stdout, answer.stderr) == (3, "out\n", "err\n")


@pytest.mark.parametrize("body", ["exec /bin/sleep 60", "trap '' TERM; /bin/sleep 60; :"])
def test_a_program_that_hangs_is_killed_with_its_children_and_named(install: Install, body: str) -> None:
    install(tool=body)
    started = time.monotonic()
    with pytest.raises(HostError, match=r"^`tool version` does not answer within 0\.2 s; restart it$"):
        probe(["tool", "version"], "restart it", timeout_seconds=0.2)
    assert time.monotonic() - started < 5


def test_a_missing_program_and_one_that_cannot_start_are_one_line(install: Install, tmp_path: Path) -> None:
    install()
    with pytest.raises(HostError, match="^tool is not on PATH; install it$"):
        probe(["tool"], "install it")
    (tmp_path / "tool").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "tool").chmod(0o755)
    with pytest.raises(HostError, match=r"^tool cannot be started \(Exec format error\); install it$"):
        probe(["tool"], "install it")


def test_output_that_is_not_utf8_is_replaced(install: Install) -> None:
    install(tool="printf '\\351'")
    assert probe(["tool"], "").stdout == "\ufffd"
