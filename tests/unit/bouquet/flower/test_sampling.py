"""Strategies sample from the nodes that are online, and never wait for one that has left."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, FedXgbCyclic, Strategy

from bouquet.errors import FleetError
from bouquet.flower import sampling as sampling_module
from bouquet.flower.sampling import check_minimums, sampling, strategies

from .strategy_fakes import FakeRunGrid, make_grid, trained


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[FakeRunGrid]:
    grid = make_grid(tmp_path, trained, nodes=5)
    list(grid.get_node_ids())
    yield grid


def sampled(strategy: Strategy, grid: FakeRunGrid) -> list[int]:
    with sampling(strategy, grid) as snapshot:
        messages = strategy.configure_train(1, ArrayRecord(), ConfigRecord(), snapshot)
        return sorted(message.metadata.dst_node_id for message in messages)


def wrapped(strategy: Strategy) -> Strategy:
    return DifferentialPrivacyServerSideFixedClipping(strategy, 0.1, 1.0, 5)


@pytest.mark.parametrize("wrap", [lambda strategy: strategy, wrapped], ids=["plain", "wrapped"])
def test_a_strategy_that_asks_for_nodes_that_left_samples_from_those_that_remain(
    grid: FakeRunGrid, wrap: Any, caplog: pytest.LogCaptureFixture
) -> None:
    grid.online = grid.online[2:]
    assert sampled(wrap(FedAvg(min_available_nodes=5, min_train_nodes=4)), grid) == grid.online
    assert caplog.text.count("min_available_nodes=5, min_train_nodes=4, but only 3 SuperNodes are online") == 1


def test_the_minimums_are_the_apps_again_after_sampling(grid: FakeRunGrid) -> None:
    strategy = FedAvg(min_available_nodes=5, min_train_nodes=4)
    grid.online = grid.online[2:]
    sampled(strategy, grid)
    assert (strategy.min_available_nodes, strategy.min_train_nodes, strategy.min_evaluate_nodes) == (5, 4, 2)


def test_nothing_is_logged_while_all_nodes_are_there(grid: FakeRunGrid, caplog: pytest.LogCaptureFixture) -> None:
    assert len(sampled(FedAvg(min_available_nodes=5, fraction_train=0.4), grid)) == 2
    assert "are online" not in caplog.text


def test_a_node_that_leaves_while_a_strategy_samples_does_not_block_it(grid: FakeRunGrid) -> None:
    strategy = FedAvg()
    with sampling(strategy, grid) as snapshot:
        counted = list(snapshot.get_node_ids())
        grid.online = grid.online[1:]
        assert list(snapshot.get_node_ids()) == counted


def test_a_strategy_that_waits_itself_sees_who_joins_and_who_leaves(
    grid: FakeRunGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling_module, "SNAPSHOT_SECONDS", 0.0)
    strategy = FedAvg(min_available_nodes=5)
    with sampling(strategy, grid) as snapshot:
        for online in ([100, 101], [100, 101, 102, 103]):
            grid.online = online
            assert list(snapshot.get_node_ids()) == online
            assert strategy.min_available_nodes == len(online)
    assert strategy.min_available_nodes == 5


def test_one_node_is_enough_for_a_strategy_with_a_fixed_minimum(grid: FakeRunGrid) -> None:
    grid.online = [104]
    assert sampled(FedXgbCyclic(), grid) == [104]


def test_a_snapshot_passes_all_else_on_to_the_runs_grid(grid: FakeRunGrid) -> None:
    with sampling(FedAvg(), grid) as snapshot:
        assert snapshot.run.run_id == grid.run.run_id
        assert snapshot.members is grid.members
        assert list(snapshot.send_and_receive([], timeout=1)) == []
        with pytest.raises(AttributeError):
            snapshot.no_such_name  # noqa: B018


def test_a_strategy_may_ask_for_as_many_nodes_as_the_run_has() -> None:
    check_minimums(FedAvg(min_available_nodes=5, min_train_nodes=5, min_evaluate_nodes=5), 5)


@pytest.mark.parametrize("name", ["min_available_nodes", "min_train_nodes", "min_evaluate_nodes"])
def test_a_strategy_that_asks_for_more_nodes_is_refused_with_the_argument_and_the_setting(name: str) -> None:
    options: dict[str, Any] = {name: 6}
    message = rf"^FedAvg: {name}=6, but the run has 5 SuperNodes; start more \(SUPERNODES=6 make up\), or"
    with pytest.raises(FleetError, match=message):
        check_minimums(FedAvg(**options), 5)


def test_the_strategies_of_a_wrapper_are_found() -> None:
    inner = FedAvg()
    outer = wrapped(inner)
    assert strategies(outer) == [outer, inner]
    assert strategies(inner) == [inner]
