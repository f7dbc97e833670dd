"""Terminals that are not UTF-8."""

import os
import subprocess
import sys

import pytest

CODE = (
    "import sys; from bouquet.host.output_encoding import replace_unprintable; replace_unprintable()\n"
    "print('┌ caf\\u00e9'); sys.stderr.write('✓ done\\n')"
)


@pytest.mark.parametrize(("encoding", "output"), [("ascii", b"? caf?\n"), ("latin-1", b"? caf\xe9\n")])
def test_a_character_that_the_terminal_lacks_is_a_question_mark(encoding: str, output: bytes) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    printed = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, check=True)
    assert (printed.stdout, printed.stderr) == (output, b"? done\n")
