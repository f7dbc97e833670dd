"""Text tables: aligned columns, cells as they are, and no line that is wrapped or cut."""

import pytest

from bouquet.host.text_table import text_table


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
