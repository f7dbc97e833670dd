"""Where contract tests find what Flower consists of."""

import inspect
import textwrap
from importlib import import_module
from typing import Any


def find(path: str) -> Any:
    """`module.name`, `module.Class` or `module.Class.attribute`; the longest module that exists."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(path)


def source(path: str) -> str:
    """The source code of what `find` finds."""
    return textwrap.dedent(inspect.getsource(find(path)))
