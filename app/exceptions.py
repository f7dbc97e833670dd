"""Exceptions of the app, with messages that a user can act on.

AppError (ValueError)
├── SettingError    a setting has an invalid value: names the setting, the value and the fix
├── FleetError      too few SuperNodes are online
├── RunError        the run ended without the model it was started for
└── NodeError       an exception in a ClientApp, with the node's partition-id and, for a bug, the traceback
"""


class AppError(ValueError):
    """Base class of every error that the app raises on purpose; the message is meant for the user."""


class SettingError(AppError):
    """A setting has an invalid value.

    Args:
        name: The setting as the user writes it: a run-config key, a node-config key or an environment variable.
        value: Its value.
        problem: What is wrong with the value.
        hint: What to do instead.
    """

    def __init__(self, name: str, value: object, problem: str, hint: str) -> None:
        self.name, self.value = name, value
        super().__init__(f"{name}={value}: {problem}; {hint}")


class FleetError(AppError):
    """Too few SuperNodes are online."""


class RunError(AppError):
    """The run ended without the model it was started for."""


class NodeError(AppError):
    """An exception in a ClientApp, with the node's partition-id and, for a bug, the traceback."""
