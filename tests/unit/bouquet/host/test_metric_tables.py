"""Tables of metrics.json: the columns are the app's own metrics, and fit the terminal."""

from typing import Any

import pytest

from bouquet.host.metric_tables import MAX_ROWS, exchanges_table, rounds_table

WIDE = 200


def phase(replies: int = 5, failures: int = 0, **metrics: Any) -> dict[str, Any]:
    return {"metrics": metrics, "replies": replies, "failures": failures, "seconds": 1.0, "nodes": {}, "errors": {}}


def a_round(number: int = 1, **parts: Any) -> dict[str, Any]:
    return {"round": number, "train": phase(), "evaluate": phase(), "central": None, "seconds": 12.5} | parts


def test_a_round_has_a_column_for_each_metric_of_each_phase() -> None:
    rounds = [
        a_round(1, train=phase(5, loss_a=2.0), evaluate=phase(9, 1, auc=0.25), central={"rmse": 1.5}),
        a_round(2, train=phase(4, 1, loss_a=1.0), evaluate=phase(10, auc=0.5), central={"rmse": 0.5}),
    ]
    assert rounds_table(rounds, WIDE).splitlines() == [
        "round  trained  loss_a  evaluated     auc  central rmse  seconds",
        "    1   5 of 5  2.0000    9 of 10  0.2500        1.5000     12.5",
        "    2   4 of 5  1.0000   10 of 10  0.5000        0.5000     12.5",
    ]


def test_a_metric_that_two_phases_have_is_told_apart() -> None:
    header = rounds_table([a_round(train=phase(loss=1.0), evaluate=phase(loss=2.0))], WIDE).splitlines()[0]
    assert header == "round  trained  train loss  evaluated  eval loss  seconds"


def test_a_phase_that_no_round_has_takes_no_columns() -> None:
    header = rounds_table([a_round(evaluate=phase(0))], WIDE).splitlines()[0]
    assert header == "round  trained  seconds"


def test_a_row_shows_a_dash_for_what_its_round_does_not_have() -> None:
    rounds = [a_round(0, train=phase(0), central={"acc": 0.1}), a_round(1, train=phase(loss=None, n=3))]
    assert rounds_table(rounds, WIDE).splitlines()[1:] == [
        "    0        -     -  -     5 of 5       0.1000     12.5",
        "    1   5 of 5     -  3     5 of 5            -     12.5",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0000"),
        (-1.5, "-1.5000"),
        (0.0000123, "1.230e-05"),
        (-12345678.0, "-1.235e+07"),
        (12345678, "12345678"),
        (True, "True"),
        ([1.0, 2.0], "2 values"),
    ],
)
def test_a_value_is_shown_so_that_it_can_be_read(value: Any, shown: str) -> None:
    assert rounds_table([a_round(train=phase(m=value))], WIDE).splitlines()[1].split("5 of 5")[1].strip() == shown


def test_in_a_narrow_terminal_the_first_metrics_of_the_nodes_stay_and_a_line_has_the_others() -> None:
    train = phase() | {"metrics": {f"metric_{n}": float(n) for n in range(12)}}
    evaluate = phase(first=1.0, second=2.0)
    table = rounds_table([a_round(train=train, evaluate=evaluate, central={"top": 0.5})], 80).splitlines()
    assert max(map(len, table[:2])) <= 80
    assert table[0] == "round  trained  metric_0  metric_1  metric_2  evaluated   first  second  seconds"
    others = ", ".join(f"metric_{n} {n}.0000" for n in range(3, 9))
    assert table[2] == f"the other metrics, in the last row: {others} and 4 more"


def test_metrics_of_the_central_evaluation_give_way_first() -> None:
    rounds = [a_round(1, train=phase(loss=1.0), central={"acc": acc}) for acc in (0.25, 0.5)]
    table = rounds_table(rounds, 50).splitlines()
    assert table[0] == "round  trained    loss  evaluated  seconds"
    assert table[3] == "the other metrics, in the last row: central acc 0.5000"


def test_nodes_and_seconds_stay_in_the_narrowest_terminal() -> None:
    table = rounds_table([a_round(train=phase(loss=1.0))], 10).splitlines()
    assert table[0] == "round  trained  evaluated  seconds"
    assert table[2] == "the other metrics, in the last row: loss 1.0000"


def test_of_a_long_run_the_last_rounds_are_shown() -> None:
    lines = rounds_table([a_round(n) for n in range(1, MAX_ROWS + 8)], WIDE).splitlines()
    assert len(lines) == MAX_ROWS + 2
    assert lines[1].split()[0] == "8"
    assert lines[-1] == "not shown: the first 7 rounds"


def exchange(number: int = 1, **parts: Any) -> dict[str, Any]:
    return {"exchange": number, "message-type": "query", **phase(2), "seconds": 0.25} | parts


def test_an_exchange_shows_its_type_its_nodes_and_the_mean_of_each_metric() -> None:
    exchanges = [exchange(1, metrics={"count": 3.5, "extra": 1.0}), exchange(2, failures=1)]
    assert exchanges_table(exchanges, WIDE).splitlines() == [
        "exchange   type   nodes  mean count  mean extra  seconds",
        "       1  query  2 of 2      3.5000      1.0000      0.2",
        "       2  query  2 of 3           -           -      0.2",
    ]


def test_of_many_exchanges_the_last_ones_are_shown_with_their_numbers() -> None:
    lines = exchanges_table([exchange(n) for n in range(1, MAX_ROWS + 2)], WIDE).splitlines()
    assert lines[1].split()[0] == "2"
    assert lines[-1] == "not shown: the first 1 exchanges"
