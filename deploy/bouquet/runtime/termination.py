"""SIGTERM in a process that runs an app: it ends as after `sys.exit()`, so that exit handlers run."""

import signal

EXIT_CODE = 128 + signal.SIGTERM
"""Exit code of a process that has ended because of SIGTERM, as a shell reports it."""


class Terminated(SystemExit):
    """Raised in the main thread by SIGTERM."""


def exit_on_sigterm() -> None:
    """Have the first SIGTERM raise `Terminated`. Later ones are ignored."""
    signal.signal(signal.SIGTERM, _raise)


def ignore_sigterm() -> None:
    """Ignore SIGTERM from now on: this process is ending already."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _raise(number: int, frame: object) -> None:
    ignore_sigterm()
    raise Terminated(EXIT_CODE)
