"""What Ctrl-C and SIGTERM do to a command: one line, no traceback, and the exit code that a shell expects."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SECOND_CTRL_C_SECONDS = 5.0
"""How long a second Ctrl-C counts as one more answer to the first."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. It ends a command as Ctrl-C does, and only its exit code differs."""


class Interrupted(BaseException):
    """A command was interrupted, and this says what that means.

    Args:
        line: One line for the user; empty where the user has read all there is to know.
        cause: What interrupted it.
    """

    def __init__(self, line: str, cause: KeyboardInterrupt) -> None:
        super().__init__(line)
        self.line = line
        self.exit_code = exit_code(cause)


def exit_code(cause: KeyboardInterrupt) -> int:
    """Return the exit code of a process that a signal ended, as a shell reports it: 130 for Ctrl-C."""
    return 128 + (signal.SIGTERM if isinstance(cause, Terminated) else signal.SIGINT)


@contextmanager
def ends_at_once(line: str) -> Iterator[None]:
    """Let Ctrl-C inside the block end the process with a line. An import may swallow an exception instead."""

    def end(number: int, frame: FrameType | None) -> None:
        _end(Interrupted(line, KeyboardInterrupt()))

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def explains_interrupt(line: str) -> Iterator[None]:
    """Give an interrupt inside the block, or inside a decorated function, the line that explains its effect."""
    try:
        yield
    except KeyboardInterrupt as cause:
        raise Interrupted(line, cause) from None


def report_interrupts(main: Callable[[], None]) -> None:
    """Run `main`; after an interrupt print one line on stderr and end the process at once, whatever its threads do."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # ignored signals stay ignored
        signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        main()
    except KeyboardInterrupt as cause:
        _end(Interrupted("interrupted", cause))
    except Interrupted as interrupted:
        _end(interrupted)


def _end(interrupted: Interrupted) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if interrupted.line:
        os.write(sys.stderr.fileno(), f"\nbouquet: {interrupted.line}\n".encode(sys.stderr.encoding, "replace"))
    with suppress(OSError, RuntimeError):  # the signal may have come while a line was printed
        sys.stdout.flush()
    os._exit(interrupted.exit_code)


class CtrlCCounter:
    """Turns the first Ctrl-C inside its `with` block into an exception, and only counts the following ones."""

    def __init__(self) -> None:
        self.pressed_again = False
        self._pressed = False
        self._before: object = None

    def __enter__(self) -> "CtrlCCounter":
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, self._on_ctrl_c)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]

    def _on_ctrl_c(self, number: int, frame: FrameType | None) -> None:
        if self._pressed:
            self.pressed_again = True
        else:
            self._pressed = True
            raise KeyboardInterrupt


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated
