"""One start of a fleet at a time: two commands at once must not replace each other's packages."""

import fcntl
from collections.abc import Callable
from typing import IO

from bouquet.errors import SettingError
from bouquet.settings.host import HostSettings

WAITING = "another bouquet command is starting this fleet; waiting for it"


class StartLock:
    """A lock that a command holds from the start of a fleet until its run is submitted, or until the process ends."""

    def __init__(self) -> None:
        self._held: IO[bytes] | None = None

    def acquire(self, settings: HostSettings, say: Callable[[str], None]) -> None:
        """Acquire the lock; wait for the command that holds it.

        Args:
            settings: The settings: BOUQUET_HOME has the lock, COMPOSE_PROJECT_NAME tells fleets apart.
            say: Is told that this command waits.

        Raises:
            SettingError: BOUQUET_HOME cannot be written.
        """
        path = settings.home / f"start-{settings.compose_project}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._held = path.open("ab")
        except OSError as error:
            hint = "give a folder that you can write to"
            raise SettingError("BOUQUET_HOME", settings.home, f"cannot be written ({error.strerror})", hint) from error
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(WAITING)
            fcntl.flock(self._held, fcntl.LOCK_EX)

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._held:
            self._held.close()
