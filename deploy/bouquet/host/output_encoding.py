"""What the commands print, on terminals that do not show every character."""

import io
import sys


def replace_unprintable() -> None:
    """Have stdout and stderr print `?` for a character that the locale's encoding lacks, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not one that a test or a program put in its place
            stream.reconfigure(errors="replace")
