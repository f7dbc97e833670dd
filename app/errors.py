"""Errors of the app, each one line that a user can act on.

AppError (ValueError)
├── SettingError    a setting has an impossible value: names setting, value and mend
├── FleetError      the fleet is not complete in time
├── RunError        the run ended without the model it was started for
└── NodeError       what a ClientApp raised, with the node's partition-id and the traceback
"""


class AppError(ValueError):
    """Base of all errors the app raises on purpose; its text is meant for the user."""


class SettingError(AppError):
    """A setting has an impossible value.

    Args:
        name: The setting, as the user writes it: a run-config key, a node-config key, a variable.
        value: What it was set to.
        problem: What is wrong with that value.
        mend: What to do instead.
    """

    def __init__(self, name: str, value: object, problem: str, mend: str) -> None:
        self.name, self.value = name, value
        super().__init__(f"{name}={value}: {problem}; {mend}")


class FleetError(AppError):
    """Fewer SuperNodes than expected joined in time."""


class RunError(AppError):
    """The run ended without the model it was started for."""


class NodeError(AppError):
    """An exception of a ClientApp, told with the node's partition-id and the traceback."""
