"""The plot shows whatever metrics a run has."""

import math
import sys
from typing import Any

import pytest

from bouquet.record.entries import Phase, Round
from bouquet.record.history_plot import MAX_PANELS, panels, plot_history


def a_round(number: int, train: Any = None, evaluate: Any = None, central: Any = None, nodes: Any = ()) -> Round:
    entry = Round(number, Phase(train or {}), Phase(evaluate or {}), central)
    for node_id, metrics in enumerate(nodes):
        entry.evaluate.add_node(node_id, node_id, metrics)
    return entry


def test_metrics_of_the_same_quantity_share_a_panel() -> None:
    found = panels([a_round(1, {"train_loss": 2.0}, {"eval_loss": 1.0, "eval_acc": 0.5}, {"accuracy": 0.6, "loss": 3})])
    assert list(found) == ["accuracy", "loss"]
    assert found["loss"].lines == {"train": [(1, 2.0)], "evaluate": [(1, 1.0)], "central": [(1, 3)]}
    assert found["accuracy"].lines == {"evaluate": [(1, 0.5)], "central": [(1, 0.6)]}


def test_two_metrics_of_one_source_do_not_share_a_panel() -> None:
    found = panels([a_round(number, None, {"eval_auc": 0.5, "test_auc": 0.7}) for number in (1, 2)])
    assert list(found) == ["auc", "test_auc"]
    assert found["test_auc"].lines == {"evaluate": [(1, 0.7), (2, 0.7)]}


@pytest.mark.parametrize("names", [("val_loss", "loss"), ("loss", "val_loss")])
def test_metrics_of_one_source_stay_apart_in_either_order(names: tuple[str, str]) -> None:
    found = panels([a_round(number, None, dict(zip(names, (1.0, 2.0), strict=True))) for number in (1, 2)])
    assert [panel.lines for panel in found.values()] == [{"evaluate": [(1, value), (2, value)]} for value in (1.0, 2.0)]


def test_lists_and_numbers_that_are_not_finite_are_left_out() -> None:
    found = panels([a_round(1, {"loss": math.nan, "counts": [1, 2]}), a_round(2, {"loss": 1.0})])
    assert {title: panel.lines for title, panel in found.items()} == {"loss": {"train": [(2, 1.0)]}}


def test_the_band_spans_the_nodes_of_a_round() -> None:
    nodes = [{"eval_acc": 0.2}, {"eval_acc": 0.9}, {"other": 1.0}, {"eval_acc": math.inf}]
    found = panels([a_round(1, None, {"eval_acc": 0.5}, nodes=nodes), a_round(2, None, {"eval_acc": 0.6})])
    assert found["accuracy"].band == [(1, 0.2, 0.9)]


def test_the_evaluation_of_the_initial_arrays_is_at_round_0() -> None:
    assert panels([a_round(0, central={"loss": 5.0})])["loss"].lines == {"central": [(0, 5.0)]}


@pytest.mark.parametrize("metrics", [1, MAX_PANELS + 5])
@pytest.mark.parametrize("rounds", [1, 3])
def test_a_plot_is_a_png(metrics: int, rounds: int) -> None:
    values = {f"metric-{number}": 0.5 for number in range(metrics)}
    plot = plot_history([a_round(number, values, {"eval_acc": 0.5}, nodes=[values]) for number in range(rounds)])
    assert plot is not None
    assert plot.startswith(b"\x89PNG")


def test_drawing_does_not_choose_a_backend_for_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    plot_history([a_round(1, {"loss": 1.0})])
    assert "matplotlib.pyplot" not in sys.modules


def test_a_run_without_metrics_has_no_plot() -> None:
    assert plot_history([]) is None
    assert plot_history([a_round(1)]) is None
