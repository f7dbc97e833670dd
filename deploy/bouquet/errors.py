"""Everything that can go wrong for a user, as one small tree.

    BouquetError            1
    ├── SettingError        2   a setting has an impossible value
    ├── HostError           3   the machine lacks something
    ├── FleetError          4   the fleet did not come up, or went down
    └── RunError            5   a run was rejected or failed

The number is the exit code. Each error is one line: what is wrong, then a hint that says how to fix it.
"""

import sys
from collections.abc import Callable
from typing import ClassVar


class BouquetError(Exception):
    """Base of the errors that a command reports in one line.

    Args:
        message: What is wrong: the setting and its value, or the thing that is missing.
        hint: How to fix it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"


class SettingError(BouquetError):
    """A setting has an impossible value.

    Args:
        name: The setting, as the user writes it.
        value: What it is set to.
        problem: What is wrong with that value.
        hint: How to fix it.
    """

    exit_code = 2

    def __init__(self, name: str, value: object, problem: str, hint: str) -> None:
        super().__init__(f"{name}={value}: {problem}", hint)


class HostError(BouquetError):
    """The machine lacks something that the fleet needs."""

    exit_code = 3


class FleetError(BouquetError):
    """The fleet did not come up, or went down."""

    exit_code = 4


class RunError(BouquetError):
    """A run was rejected or failed."""

    exit_code = 5


def report_errors(main: Callable[[], None]) -> None:
    """Run `main`; print a `BouquetError` as one line on stderr, and exit with its code."""
    try:
        main()
    except BouquetError as error:
        sys.stderr.write(f"bouquet: error: {error}\n")
        sys.exit(error.exit_code)
