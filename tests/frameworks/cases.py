"""What is installed, preloaded and trained in each test of a fork."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """A test of one environment.

    Attributes:
        name: The function in `trainings.py`, and the name of the test.
        preloads: The frameworks of `bouquet.executor.frameworks` that it tests.
        packages: What to install from PyPI in an environment of its own; nothing: the checkout's environment.
        is_large: Whether the packages take more than 200 MB. Such a case runs on request only.
        environment: Variables of the zygote.
    """

    name: str
    preloads: tuple[str, ...]
    packages: tuple[str, ...] = ()
    is_large: bool = False
    environment: dict[str, str] = field(default_factory=dict)


CASES = (
    Case("keras", ("keras", "numpy", "datasets", "flwr_datasets")),
    Case("pandas", ("numpy", "pandas"), ("pandas",)),
    Case("sklearn", ("sklearn",), ("scikit-learn",)),
    Case("lightgbm", ("lightgbm",), ("lightgbm", "scikit-learn")),
    Case("xgboost", ("xgboost",), ("xgboost-cpu", "scikit-learn")),
    Case("xgboost_cuda", ("xgboost",), ("xgboost", "scikit-learn"), is_large=True),
    Case("catboost", ("catboost",), ("catboost",), is_large=True),
    Case("torch", ("torch", "torchvision"), ("torch", "torchvision"), is_large=True),
    Case("transformers", ("transformers", "torch"), ("transformers", "torch"), is_large=True),
    Case("keras_torch", ("torch",), ("keras", "torch"), is_large=True, environment={"KERAS_BACKEND": "torch"}),
)
