"""Short questions to other programs, such as `docker version` or `nvidia-smi -L`, which may hang."""

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from bouquet.errors import HostError

PROBE_TIMEOUT = 8.0
"""Seconds that a program may take to answer."""
REAP_TIMEOUT = 1.0


def start(command: list[str], environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start a program whose output is wanted, in a session of its own: Ctrl-C in the terminal does not reach it.

    Args:
        command: The program and its arguments.
        environment: All of its environment variables; None for those of this process.

    Raises:
        OSError: It cannot be started.
    """
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def probe(command: list[str], hint: str, timeout_seconds: float | None = None) -> "subprocess.CompletedProcess[str]":
    """Return what a program answers: its exit code, which may be other than 0, and its output.

    A program that does not answer in time is killed with everything that it has started. It is not waited for: a
    program that waits in a driver of the kernel, as nvidia-smi can, does not end even then.

    Args:
        command: The program and its arguments.
        hint: How to fix a program that is missing or does not answer.
        timeout_seconds: How long the program may take; None for `PROBE_TIMEOUT`.

    Raises:
        HostError: The program cannot be started, or it does not answer in time.
    """
    timeout = PROBE_TIMEOUT if timeout_seconds is None else timeout_seconds
    try:
        program = start(command)
    except FileNotFoundError as error:
        raise HostError(f"{command[0]} is not on PATH", hint) from error
    except OSError as error:
        raise HostError(f"{command[0]} cannot be started ({error.strerror})", hint) from error
    try:
        output, errors = program.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        _kill(program)
        question = " ".join(command[:2]).partition("=")[0]
        raise HostError(f"`{question}` does not answer within {timeout:g} s", hint) from error
    except BaseException:
        _kill(program)
        raise
    return subprocess.CompletedProcess(command, program.returncode, output, errors)


def last_line(errors: str, otherwise: str) -> str:
    """Return the last line that a program has written, which is the reason for most; `otherwise` if there is none."""
    return (errors.strip().splitlines() or [otherwise])[-1]


def docker_reason(errors: str | bytes) -> str:
    """Return why a `docker` command failed, from what it has written to stderr."""
    text = errors if isinstance(errors, str) else errors.decode(errors="replace")
    return last_line(text, "docker gives no reason")


def _kill(program: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        program.wait(REAP_TIMEOUT)
    for pipe in (program.stdout, program.stderr):
        if pipe is not None:
            pipe.close()
