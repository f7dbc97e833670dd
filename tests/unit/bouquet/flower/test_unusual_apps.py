"""Apps that stock Flower runs although they differ from its examples: the fleet's record must not be what ends them."""

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from bouquet.errors import RunError

from .strategy_fakes import (
    FIRST_NODE,
    Answer,
    failing,
    initial_arrays,
    make_grid,
    metrics,
    partition,
    reply,
    run,
    start,
    trained,
)

pytestmark = pytest.mark.usefixtures("flower_as_it_was")


def evaluated(returned: Any, tmp_path: Path) -> list[Any]:
    start(FedAvg(), trained, tmp_path, evaluate_fn=lambda server_round, arrays: returned)
    return [each["central"] for each in metrics(tmp_path)["rounds"]]


@pytest.mark.parametrize(
    ("returned", "central"),
    [
        ({"loss": np.float32(0.5), "counts": np.arange(2)}, {"loss": 0.5, "counts": [0, 1]}),
        ({"loss": np.float32(math.nan), "by": {1: (2, 3)}}, {"loss": None, "by": {"1": [2, 3]}}),
        ({"model": Path("/a/b")}, {"model": "/a/b"}),
    ],
    ids=["numpy", "nan", "text"],
)
def test_any_value_that_an_evaluate_fn_returns_is_recorded_or_left_out(
    returned: Any, central: dict[str, Any], tmp_path: Path
) -> None:
    assert evaluated(returned, tmp_path) == [central] * 3


@pytest.mark.parametrize("deadline", [None, 60])
def test_an_own_start_or_an_own_grid_gets_a_timeout_that_it_can_calculate_with(
    deadline: float | None, tmp_path: Path
) -> None:
    ends: list[float] = []
    grid = make_grid(tmp_path, trained, round_deadline=deadline)

    class Counting:
        """A grid of the app's own."""

        def __getattr__(self, name: str) -> Any:
            return getattr(grid, name)

        def send_and_receive(self, messages: Iterable[Message], *, timeout: float) -> Iterable[Message]:
            ends.append(time.time() + timeout)
            return grid.send_and_receive(messages, timeout=timeout)

    def main() -> None:
        class Own(FedAvg):
            def start(self, grid: Any, initial_arrays: ArrayRecord, timeout: float = 3600) -> Result:  # type: ignore[override]
                ends.append(time.time() + timeout)
                return super().start(grid, initial_arrays, 1, timeout)

        FedAvg().start(Counting(), initial_arrays(), num_rounds=1)  # type: ignore[arg-type]
        Own().start(grid, initial_arrays())

    run(grid, main, tmp_path)
    assert len(ends) == 3
    assert all(math.isinf(end) == (deadline is None) for end in ends)


def test_a_start_that_calls_the_start_of_other_strategies_is_recorded_and_guarded(tmp_path: Path) -> None:
    def central(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord({"score": float(server_round)})

    def train(answer: Answer, folder: Path) -> None:
        folder.mkdir()
        grid = make_grid(folder, answer)

        def main() -> None:
            class Wrapper(Strategy):
                configure_train = configure_evaluate = aggregate_train = aggregate_evaluate = summary = None  # type: ignore[assignment]

                def start(self, grid: Grid, arrays: ArrayRecord, **options: Any) -> Result:  # type: ignore[override]
                    for _ in range(2):
                        result = FedAvg(min_available_nodes=5).start(grid, arrays, 1, **options)
                    return result

            Wrapper().start(grid, initial_arrays(), evaluate_fn=central)

        run(grid, main, folder)

    train(trained, tmp_path / "well")
    written = metrics(tmp_path / "well")
    assert [each["round"] for each in written["rounds"]] == [0, 1, 0, 1]
    assert [each["central"] for each in written["rounds"]] == [{"score": 0.0}, {"score": 1.0}] * 2
    assert (written["strategy"], written["exchanges"]) == ("FedAvg", [])
    assert 0 < written["seconds"] < 60
    with pytest.raises(RunError, match="no node trained"):
        train(failing("train", *range(5)), tmp_path / "ill")


class Parts(FedAvg):
    """Each node trains a part of the model of another size; the app combines them."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        sizes = sorted(each.content.array_records["arrays"]["weight"].shape[0] for each in valid)
        return initial_arrays(), MetricRecord({"sizes": sizes})


def parts(message: Message) -> Message:
    weight = np.ones((partition(message) + 1, 2))
    return reply(message, ArrayRecord({"weight": ArrayRecord([weight])["0"]}), num_examples=1)


def test_an_app_may_combine_arrays_of_different_shapes_itself(tmp_path: Path) -> None:
    start(Parts(fraction_evaluate=0.0), parts, tmp_path, num_rounds=1)
    (only,) = metrics(tmp_path)["rounds"]
    assert only["train"]["metrics"] == {"sizes": [1, 2, 3, 4, 5]}
    assert only["train"]["failures"] == 0


def test_flower_averages_arrays_of_one_shape_alone(tmp_path: Path) -> None:
    start(FedAvg(fraction_evaluate=0.0), parts, tmp_path, num_rounds=1)
    assert metrics(tmp_path)["rounds"][0]["train"]["failures"] == 4


class Clusters(FedAvg):
    """Averages two groups of nodes, one after the other."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        replies = sorted(replies, key=lambda each: each.metadata.src_node_id)
        first, _ = super().aggregate_train(server_round, replies[:2])
        second, _ = super().aggregate_train(server_round, replies[2:])
        return first or second, MetricRecord({"clusters": bool(first) + bool(second)})


def test_a_group_without_a_usable_reply_does_not_end_the_round_of_the_others(tmp_path: Path) -> None:
    def answer(message: Message) -> Message:
        given = trained(message)
        if partition(message) >= 2 and message.metadata.message_type == "train":
            given.content.metric_records["metrics"]["num-examples"] = 0
        return given

    start(Clusters(), answer, tmp_path, num_rounds=1)
    (only,) = metrics(tmp_path)["rounds"]
    assert only["train"]["metrics"] == {"clusters": 1}
    assert sorted(only["train"]["nodes"]) == [str(FIRST_NODE), str(FIRST_NODE + 1)]


class Asks(FedAvg):
    """Asks the nodes once more while it aggregates."""

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: Any, grid: Grid) -> Iterable[Message]:
        self.grid = grid
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        time.sleep(0.6)  # the list of nodes is older than 0.5 s
        again = super().configure_train(server_round, initial_arrays(), ConfigRecord(), self.grid)
        self.grid.send_and_receive(again)
        return super().aggregate_train(server_round, replies)


def test_an_exchange_during_the_aggregation_is_recorded_and_leaves_the_strategy_as_it_was(tmp_path: Path) -> None:
    strategy = Asks(min_train_nodes=3, fraction_evaluate=0.0)
    start(strategy, trained, tmp_path, num_rounds=1)
    written = metrics(tmp_path)
    assert [(each["exchange"], each["message-type"]) for each in written["exchanges"]] == [(1, "train")]
    assert written["rounds"][0]["train"]["replies"] == 5
    assert strategy.min_train_nodes == 3


def test_a_server_app_that_calls_sys_exit_has_failed_with_its_rounds(tmp_path: Path) -> None:
    grid = make_grid(tmp_path, trained)

    def main() -> None:
        FedAvg().start(grid, initial_arrays(), num_rounds=2)
        raise SystemExit("enough")

    with pytest.raises(SystemExit):
        run(grid, main, tmp_path)
    written = metrics(tmp_path)
    assert (written["status"], written["error"], len(written["rounds"])) == ("failed", "enough", 2)
