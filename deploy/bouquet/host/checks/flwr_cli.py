"""Which `flwr` command `bouquet doctor` finds, and whether it can talk to this fleet."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from bouquet.host.submission import FLWR, QUIET

OLDEST = (1, 34)
NEWEST_TRIED = (1, 42)
VERSION_SECONDS = 20.0


def flwr_cli(own: Path = FLWR) -> str:
    """Name the `flwr` of Bouquet's environment and the first one on PATH, with their versions and whether they fit.

    No answer is a problem: `make run` needs neither, and a shell may find another `flwr` than this process.

    Args:
        own: The command of Bouquet's own environment.
    """
    found = shutil.which("flwr")
    lines = [describe(own)] if own.exists() else [f"{own} is missing: make up"]
    if found is None:
        lines.append("none on PATH")
    elif Path(found).resolve() != own.resolve():
        lines.append(f"on PATH: {describe(Path(found))}")
    return "; ".join(lines)


def describe(command: Path) -> str:
    """Return a command's path, its version, and whether that fits."""
    try:
        answer = subprocess.run(
            [command, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_SECONDS,
            check=False,
            env=os.environ | QUIET,
        )
    except subprocess.TimeoutExpired:
        return f"{command} did not tell its version within {VERSION_SECONDS:g} s"
    except OSError as error:
        return f"{command} does not start: {error.strerror}"
    if (match := re.search(r"\b(\d+)\.(\d+)\.\d+\S*", answer.stdout)) is None:
        return f"{command} does not tell its version"
    return f"{command} {match[0]}, {fit(int(match[1]), int(match[2]))}"


def fit(major: int, minor: int) -> str:
    """Return whether a release of `flwr` can talk to this fleet."""
    if (major, minor) < OLDEST:
        return "too old for this fleet: pip install 'flwr>=1.34'"
    if (major, minor) > NEWEST_TRIED:
        return f"newer than {'.'.join(map(str, NEWEST_TRIED))}, the newest that was tried"
    return "fits"
