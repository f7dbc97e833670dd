"""Runs the commands of Docker, apt and mmdebstrap."""

import subprocess
from pathlib import Path

from bouquet.errors import HostError


def run_command(
    command: list[str], problem: str, hint: str, *, cwd: Path | None = None, stdin: str | None = None
) -> None:
    """Run a command that must succeed.

    Args:
        command: The program and its arguments.
        problem: The start of the error if the command fails; its last line of output is appended.
        hint: How to fix that.
        cwd: The folder to run in; None for the current one.
        stdin: Text for its standard input; None for no text.

    Raises:
        HostError: The command's exit code is not 0.
    """
    result = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        raise HostError(f"{problem}: {reason}", hint)
