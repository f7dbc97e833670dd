"""What a zygote imports if EXECUTOR_PRELOAD does not say it: the frameworks that are installed.

A framework is on the list if a process that has imported it can be forked: its children train and end as usual.
`tests/frameworks` checks that for each of them. JAX is not on the list: its first operation starts threads, which a
child does not inherit, and libraries for JAX execute operations when they are imported.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

KERAS_BACKEND = "tensorflow"
"""The backend with which Keras can be imported before a fork. With PyTorch, its import looks for GPUs, after which a
forked child cannot use one."""


@dataclass(frozen=True)
class Framework:
    """A framework that can be imported before a fork.

    Attributes:
        package: Its import name.
        modules: What to import besides: what it would import itself at its first use.
        needs: The import name of another package that these modules need.
    """

    package: str
    modules: tuple[str, ...] = ()
    needs: str = ""


FRAMEWORKS = (
    Framework("numpy"),
    Framework("pandas"),
    Framework("sklearn", ("sklearn.linear_model", "sklearn.ensemble")),
    Framework("xgboost"),
    Framework("lightgbm"),
    Framework("catboost"),
    Framework("torch", ("torch._dynamo",)),  # the first optimizer imports it: 900 modules
    Framework("torchvision", needs="torch"),
    Framework("transformers", ("transformers.modeling_utils",), needs="torch"),
    Framework("keras", needs=KERAS_BACKEND),
    Framework("datasets"),
    Framework("flwr_datasets"),
)


def to_preload(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the modules to import, of the frameworks that this Python environment has. Imports none of them.

    Args:
        environment: The environment variables; `KERAS_BACKEND` may choose another backend of Keras.
    """
    modules: list[str] = []
    for framework in FRAMEWORKS:
        if framework.package == "keras" and (environment.get("KERAS_BACKEND") or KERAS_BACKEND) != KERAS_BACKEND:
            continue
        if _is_installed(framework.package) and (not framework.needs or _is_installed(framework.needs)):
            modules += [framework.package, *framework.modules]
    return tuple(modules)


def _is_installed(package: str) -> bool:
    """Return whether there is such a package; a folder without `__init__.py` is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
