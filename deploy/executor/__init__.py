"""The warm executor: apps run in processes that have imported their framework before any run came.

``Executor`` claims tasks and supervises, inside the Flower process; ``zygote`` has imported the framework and forks;
``worker`` is such a fork and serves one run. Flower is reached through `deploy.flower` alone.
"""

from .executor import Executor, ExecutorSettings

__all__ = ["Executor", "ExecutorSettings"]
