"""What became of a process's messages, to recognise an app that may run only once per process."""

import re
from collections import Counter

ONCE_PER_PROCESS = re.compile(
    r"\balready\b|\bonly (be )?(called|run|set|used|started|initiali[sz]ed) once\b|\bonce per process\b"
    r"|\b(cannot|must|can only|can't) be \w+ (before|after|twice)\b|\bafter (being )?initiali[sz]"
    r"|\bbefore \w+ (is|are|has been|have been) initiali[sz]",
    re.IGNORECASE,
)
"""What errors of code say that may run once: "context has already been set", "cannot be modified after being ..."."""


class MessageHistory:
    """The messages that one process has served."""

    def __init__(self) -> None:
        self._successes: Counter[str] = Counter()  # by kind
        self._failures: Counter[str] = Counter()

    def succeeded(self, kind: str) -> None:
        """Note that a message of this kind (train, evaluate, query) succeeded."""
        self._successes[kind] += 1

    def failed(self, kind: str, error: BaseException) -> str:
        """Note that the app has raised for a message of this kind.

        Returns:
            A line with the setting that may help. Empty if nothing speaks for it: an earlier message must have
            succeeded, and either the error is a typical one, or this is the second message of its kind.
        """
        served = self._successes.total() + self._failures.total()
        typical = bool(self._successes) and ONCE_PER_PROCESS.search(str(error)) is not None
        second = (self._successes[kind], self._failures[kind]) == (1, 0)
        self._failures[kind] += 1
        if not typical and not second:
            return ""
        messages = f"{served} message{'s' if served > 1 else ''}"
        return (
            f"This process had served {messages} before. If the app may run only once per process, set "
            "EXECUTOR_MESSAGES=1: each message then gets a process of its own."
        )
