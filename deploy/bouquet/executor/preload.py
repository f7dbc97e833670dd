"""What the zygote imports before any app is loaded, and what that changes for an app.

In a process of its own, an app would import its modules and set its environment variables first. In a worker, the
preloaded modules are there already:

- A module that the app brings takes the place of a preloaded one of the same name. Modules that Flower imports stay:
  they are there first in a stock process, too.
- A variable that a preloaded library has read, and that the app sets, comes too late. That is reported.
"""

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from bouquet.runtime.log import LOGGER

OURS = "bouquet"
NATIVE_READS = {
    "TF_ENABLE_ONEDNN_OPTS": ("tensorflow",),
    "OMP_NUM_THREADS": ("torch", "sklearn", "xgboost", "lightgbm"),
    "OMP_PROC_BIND": ("torch", "sklearn", "xgboost", "lightgbm"),
    "MKL_NUM_THREADS": ("torch",),
    "KMP_AFFINITY": ("torch",),
}
"""Variables that native code reads while a library is imported. Python code that reads variables is recorded."""
DEFAULTS = {
    "KERAS_BACKEND": ("tensorflow",),
    "MPLBACKEND": ("agg", "Agg"),
    "TF_ENABLE_ONEDNN_OPTS": ("1",),
    "TF_USE_LEGACY_KERAS": ("0",),
}
"""What a library assumes where a variable is not set: to set it to this changes nothing."""
_FORWARDING = {"os", "collections.abc", "_collections_abc", __name__}
"""Modules that read a variable for their caller, as `os.getenv` does."""


@dataclass(frozen=True)
class Read:
    """A variable that was read before any app was loaded.

    Attributes:
        library: The top-level package that read it first.
        value: What it found; None: the variable was not set.
    """

    library: str
    value: str | None

    def in_effect(self, variable: str) -> tuple[str | None, ...]:
        """Return the values of the variable that change nothing."""
        return (None, *DEFAULTS.get(variable, ())) if self.value is None else (self.value,)


class _RecordingEnviron(os._Environ[str]):
    """`os.environ` that records which variables libraries look up, but not copies of all variables."""

    reads: dict[str, Read]
    _upcoming: tuple[str, ...] = ()  # the keys that a copy looks up next, in this order

    def __getitem__(self, key: str) -> str:
        try:
            value = super().__getitem__(key)
        except KeyError:
            self._record(key, None)
            raise
        self._record(key, value)
        return value

    def __iter__(self) -> Iterator[str]:
        keys = tuple(super().__iter__())
        self._upcoming = keys
        yield from keys

    def _record(self, key: str, value: str | None) -> None:
        if self._upcoming and self._upcoming[0] == key:
            self._upcoming = self._upcoming[1:]
            return
        self._upcoming = ()
        if key in self.reads:
            return
        frame = sys._getframe(2)
        while frame.f_back and frame.f_globals.get("__name__") in _FORWARDING:
            frame = frame.f_back
        library = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if library not in sys.stdlib_module_names and library != OURS:
            self.reads[key] = Read(library, value)


class Preload:
    """The preloaded modules.

    Create it once the modules of Flower are imported, and before any other.
    """

    def __init__(self) -> None:
        self._framework = {_top(name) for name in sys.modules} - {OURS}
        self._reads: dict[str, Read] = {}

    def load(self, modules: list[str]) -> None:
        """Import modules; report those that cannot be imported."""
        with self._recording():
            for module in modules:
                try:
                    importlib.import_module(module)
                except Exception as error:  # an app may not need it
                    print(f"bouquet: could not preload {module}: {error}", file=sys.stderr, flush=True)
        for variable, libraries in NATIVE_READS.items():
            for library in libraries:
                if library in sys.modules:
                    self._reads.setdefault(variable, Read(library, os.environ.get(variable)))

    @contextmanager
    def loading(self, folder: Path, *, report: bool = True) -> Iterator[None]:
        """Around the import of an app: let its own modules win, and report variables that it sets too late.

        Args:
            folder: The app's folder, which will be the first in `sys.path`.
            report: Whether to log both.
        """
        for name, origin in self.forget_shadowed(folder).items():
            if report:
                LOGGER.info("The app's own module %s takes the place of the preloaded one in %s", name, origin)
        before = dict(os.environ)
        try:
            yield
        finally:
            for variable, read in self.set_too_late(before).items() if report else ():
                LOGGER.warning(
                    "The app sets %s too late: %s read it before the app was loaded. Set %s in the environment of the "
                    "nodes, or set EXECUTOR_PRELOAD=none, so that the app imports %s itself",
                    *(variable, read.library, variable, read.library),
                )

    def forget_shadowed(self, folder: Path) -> dict[str, str]:
        """Have modules of a folder imported from there, although others of their names are loaded.

        A module that has imported one of the others keeps it.

        Returns:
            By top-level name, where the forgotten module is from.
        """
        brought = {entry.name.partition(".")[0] for entry in folder.iterdir()}
        forgotten = {}
        for name in sorted(brought & {_top(module) for module in sys.modules} - self._framework):
            spec = PathFinder.find_spec(name, [str(folder)])
            if spec is None or spec.loader is None or not spec.has_location:
                continue  # a folder without __init__.py: an installed package of its name wins
            origin = str(getattr(sys.modules.get(name), "__file__", None))
            if origin == spec.origin:
                continue
            forgotten[name] = origin
            for module in [module for module in sys.modules if _top(module) == name]:
                del sys.modules[module]
        return forgotten

    def set_too_late(self, before: Mapping[str, str]) -> dict[str, Read]:
        """Return the variables that differ from `before` and from what preloaded libraries have read."""
        return {
            variable: read
            for variable, read in sorted(self._reads.items())
            if os.environ.get(variable) not in (before.get(variable), *read.in_effect(variable))
        }

    @contextmanager
    def _recording(self) -> Iterator[None]:
        environment = os.environ
        usual = environment.__class__
        environment.__class__ = _RecordingEnviron
        environment.reads = self._reads  # type: ignore[attr-defined]
        try:
            yield
        finally:
            environment.__class__ = usual


def _top(module: str) -> str:
    return module.partition(".")[0]
