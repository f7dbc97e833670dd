"""Modules that Flower has moved since apps were written that import them: an app still finds them at the old place."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from logging import WARNING
from types import ModuleType

from flwr.common.logger import log

MOVED = {"flwr.client.typing": "flwr.clientapp.typing"}
"""The new name of each, by the old one."""


def find_moved_modules() -> None:
    """Have an import of a moved module find it from now on. Flower's own modules come first."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder(MetaPathFinder, Loader):
    """Finds a moved module after all others had no module of that name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        old, new = module.__name__, MOVED[module.__name__]
        log(WARNING, "%s is %s in Flower %s: change the app's import", old, new, version("flwr"))
        public = {name: value for name, value in vars(import_module(new)).items() if not name.startswith("__")}
        vars(module).update(public)
