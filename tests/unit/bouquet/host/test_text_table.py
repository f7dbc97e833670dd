"""Text tables: aligned columns, cells as they are, and no line that is wrapped or cut."""

import pytest

from bouquet.host.text_table import Column, fitting, text_table


def test_columns_are_as_wide_as_their_widest_cell_with_two_spaces_between() -> None:
    table = text_table(("name", "state"), [("superlink", "healthy"), ("node", "-")])
    assert table.splitlines() == ["name       state", "superlink  healthy", "node       -"]


def test_numbers_are_aligned_to_the_right() -> None:
    assert text_table(("round", "loss"), [("1", "10.25"), ("10", "-")], justify="right").splitlines() == [
        "round   loss",
        "    1  10.25",
        "   10      -",
    ]


@pytest.mark.parametrize("width", ["20", "80"])
def test_a_long_cell_is_neither_wrapped_nor_cut_in_a_narrow_terminal(
    width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    long = "GPU 0 (NVIDIA H100 80GB HBM3), at most 2048 MiB a process" * 10
    assert text_table(("name", "device"), [("node", long)]).splitlines() == ["name  device", f"node  {long}"]


def test_cells_with_markup_or_emoji_codes_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert text_table(("a",), [("[red]:smile: [/]",)]).splitlines() == ["a", "[red]:smile: [/]"]


def test_a_table_without_rows_is_its_header() -> None:
    assert text_table(("name", "state"), []) == "name  state"


def test_columns_that_fit_all_stay() -> None:
    columns = [Column("a", ("123",)), Column("bc", ("1",), 1)]
    assert fitting(columns, 7) == columns


def test_the_columns_with_the_highest_rank_are_left_out_first_and_the_last_of_equal_ones() -> None:
    columns = [Column("a", ()), Column("x", (), 1), Column("y", (), 2), Column("z", (), 1), Column("w", (), 2)]
    assert [column.name for column in fitting(columns, 10)] == ["a", "x", "y", "z"]
    assert [column.name for column in fitting(columns, 7)] == ["a", "x", "z"]


def test_a_column_of_rank_zero_stays_whatever_the_width() -> None:
    assert [column.name for column in fitting([Column("name", ("long",)), Column("x", (), 1)], 1)] == ["name"]
