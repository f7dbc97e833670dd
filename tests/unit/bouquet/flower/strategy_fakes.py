"""A fleet in this process, behind a real `RunGrid`: node `FIRST_NODE + k` has partition k."""

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Result, Strategy

from bouquet.contract.partitions import write_partition_ids
from bouquet.flower.recorded_run import recorded_run
from bouquet.flower.run_grid import RunGrid
from bouquet.flower.waiting_grid import WaitingGrid
from bouquet.settings.run_settings import RunSettings

FIRST_NODE = 100
RUN_ID = 77
Answer = Callable[[Message], Message | None]
_message_ids = itertools.count()


class Nodes(WaitingGrid):
    """Nodes that answer at once; those that are not in `online` reject messages."""

    answer: Answer
    online: list[int]
    sent: list[Message]
    waits: list[float | None]
    _replies: dict[str, Message]

    def get_node_ids(self) -> Iterable[int]:
        return list(self.online)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            message_id = f"m{next(_message_ids)}" if message.metadata.dst_node_id in self.online else ""
            ids.append(message_id)
            message.metadata.__dict__.update(_run_id=RUN_ID, _message_id=message_id, _src_node_id=1)
            self.sent.append(message)
            if message_id and (reply := self._answer(message)) is not None:
                self._replies[message_id] = reply
        return ids

    def _answer(self, message: Message) -> Message | None:
        try:
            return self.answer(message)
        except Exception as error:  # as flwr's run_clientapp reports it
            return Message(Error(code=0, reason=str(error)), reply_to=message)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        here = [message_id for message_id in message_ids if message_id in self._replies]
        return [self._replies.pop(message_id) for message_id in sorted(here, reverse=True)]

    def wait_for_replies(self, message_ids: Iterable[str], timeout: float | None) -> list[Message]:
        self.waits.append(timeout)
        return list(self.pull_messages(list(message_ids)))


class FakeRunGrid(RunGrid, Nodes):
    """A run's grid on nodes in this process."""

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=RUN_ID)


def make_grid(folder: Path, answer: Answer, nodes: int = 5, **settings: Any) -> FakeRunGrid:
    """A grid whose fleet is online."""
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "size").write_text(f"{nodes}\n")
    options: dict[str, Any] = {"fleet_deadline": 0.05, "round_deadline": 60} | settings
    run_settings = RunSettings(results_dir=folder / "results", run_dir=folder / "run", **options)
    write_partition_ids(folder / "run", {FIRST_NODE + k: k for k in range(nodes)})
    grid = FakeRunGrid("127.0.0.1:1", insecure=True, token="token", settings=run_settings)
    grid.answer, grid.sent, grid.waits, grid._replies = answer, [], [], {}
    grid.online = [FIRST_NODE + k for k in range(nodes)]
    return grid


def partition(message: Message) -> int:
    return message.metadata.dst_node_id - FIRST_NODE


def reply(message: Message, arrays: ArrayRecord | None, **metrics: Any) -> Message:
    """A node's reply; underscores in the names of metrics are hyphens if the name starts with ``num_``."""
    named = {name.replace("_", "-") if name.startswith("num_") else name: each for name, each in metrics.items()}
    content = RecordDict({"metrics": MetricRecord(named)})
    if arrays is not None:
        content["arrays"] = arrays
    return Message(content, reply_to=message)


def initial_arrays() -> ArrayRecord:
    return ArrayRecord({"weight": _array(np.ones((3, 2))), "bias": _array(np.zeros(2))})


def _array(values: Any) -> Any:
    return ArrayRecord([np.asarray(values, dtype=np.float32)])["0"]


def trained(message: Message) -> Message:
    """Train: each node moves the arrays by another, fixed amount. Evaluate: another accuracy on each node."""
    k = partition(message)
    if message.metadata.message_type == "evaluate":
        return reply(message, None, eval_acc=0.1 * k, eval_loss=1.0 - 0.1 * k, num_examples=10 + k)
    sent = message.content.array_records["arrays"]
    config: ConfigRecord = message.content.config_records["config"]
    generator = np.random.default_rng([k, cast(int, config["server-round"])])
    moved = {name: _array(each.numpy() + generator.normal(size=each.shape)) for name, each in sent.items()}
    metrics = {"train_loss": 0.5 + 0.1 * k, "norm_bit": k % 2, "num_examples": 20 + k}
    return reply(message, ArrayRecord(moved), **metrics)


def trees(message: Message) -> Message:
    """Train: one XGBoost tree of the node's own."""
    if message.metadata.message_type == "evaluate":
        return trained(message)
    k = partition(message)
    model = {
        "gbtree_model_param": {"num_trees": "1", "num_parallel_tree": "1"},
        "iteration_indptr": [0, 1],
        "trees": [{"id": 0, "node": f"{'x' * k}{k}"}],
        "tree_info": [0],
    }
    content = json.dumps({"learner": {"gradient_booster": {"model": model}}}).encode()
    arrays = ArrayRecord([np.frombuffer(content, dtype=np.uint8)])
    return reply(message, arrays, train_loss=0.1 * k, num_examples=20 + k)


def run(grid: FakeRunGrid, main: Callable[[], Any], tmp_path: Path) -> Any:
    """Run `main` as the main function of a ServerApp."""
    with recorded_run(grid, Context(RUN_ID, 0, {}, RecordDict(), {"rounds": 2}), tmp_path):
        return main()


def start(
    strategy: Strategy, answer: Answer, tmp_path: Path, nodes: int = 5, num_rounds: int = 2, **options: Any
) -> Result:
    grid = make_grid(tmp_path, answer, nodes)
    arrays = options.pop("initial_arrays", None) or initial_arrays()
    result: Result = run(
        grid,
        lambda: strategy.start(grid=grid, initial_arrays=arrays, num_rounds=num_rounds, **options),
        tmp_path,
    )
    return result


def metrics(tmp_path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((tmp_path / "results" / "latest" / "metrics.json").read_text())
    return read


def failing(kind: str, *partition_ids: int) -> Answer:
    def answer(message: Message) -> Message:
        if message.metadata.message_type == kind and partition(message) in partition_ids:
            raise ValueError("broken")
        return trained(message)

    return answer
