"""NODE_CONFIG and NODE_CONFIG_FILE: what is refused, who wins, and that Flower reads every value."""

from pathlib import Path

import pytest
from flwr.common.config import parse_config_args

from bouquet.errors import SettingError
from bouquet.settings.node_config_settings import NodeConfigSettings, notation


def read(pairs: str = "", file: Path | None = None) -> NodeConfigSettings:
    return NodeConfigSettings.read({"NODE_CONFIG": pairs}, file)


def write(folder: Path, content: str) -> Path:
    file = folder / "nodes.toml"
    file.write_text(content, encoding="utf-8")
    return file


def test_pairs_are_for_all_nodes() -> None:
    settings = read("""site="north wing" db-port=5432 rate=2.5e-3 debug=true path='C:\\new'""")
    expected = {"site": "north wing", "db-port": 5432, "rate": 2.5e-3, "debug": True, "path": "C:\\new"}
    assert settings.of(0) == settings.of(7) == expected
    assert settings.digest == ""


def test_a_table_wins_over_the_pairs_and_those_over_the_top_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'a = "file"\nb = "file"\nc = "file"\n[3]\nc = "table"\nd = 4\n')
    settings = read('b="pairs" c="pairs"', file)
    assert settings.of(0) == {"a": "file", "b": "pairs", "c": "pairs"}
    assert settings.of(3) == {"a": "file", "b": "pairs", "c": "table", "d": 4}


def test_the_digest_changes_with_the_file(tmp_path: Path) -> None:
    before = read(file=write(tmp_path, "a = 1")).digest
    assert before == read(file=write(tmp_path, "a = 1")).digest != ""
    assert before != read(file=write(tmp_path, "a = 2")).digest


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " a b ",
            "it's",
            'a "quoted" name',
            "back\\slash\\n",
            "x=1 y=2",
            "é\tü\nx\x7f\x00",
            "a.toml",
            "\u2028",
            "#",
        ),
        *(0, -5, 2**63 - 1, -(2**63), 0.1, 1e16, -2.5e-07, float("inf"), True, False),
    ],
)
def test_flower_and_another_node_read_the_same_value(value: str | float) -> None:
    values = {"first": value, "second": 1}
    text = notation(values)
    assert "\n" not in text
    for found in (parse_config_args([text]), read(text).of(0)):
        assert found == values
        assert type(found["first"]) is type(value)


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        (
            "site=north",
            "`north` is neither a number, nor true or false, nor text in quotes; .*NODE_CONFIG='site=\"north",
        ),
        ("a=1,b=2", "`1,b=2` is neither"),
        ("a=1 b", "`b` is not a key=value pair"),
        ("a.b=1", "`a.b=1` is not a key=value pair"),
        ("a=1#c", "`a=1#c` is not a key=value pair"),
        ('a="x', "is not a key=value pair"),
        ('a="x"b=1', "is not a key=value pair"),
        ("a=1 a=2", "the key a is there twice"),
        ("partition-id=3", "partition-id is a key that the fleet sets itself"),
        ("num-partitions=3", "num-partitions is a key that the fleet sets itself"),
        ("a=[1]", "the value of a is not a number, true, false or text"),
        ("a=1979-05-27", "the value of a is not a number"),
        ("a=9223372036854775808", "a is beyond 64 bits"),
        ('a="\udcff"', "the value of a is not UTF-8"),
    ],
)
def test_pairs_that_are_not_valid_are_refused(pairs: str, problem: str) -> None:
    with pytest.raises(SettingError, match=f"^NODE_CONFIG=.*{problem}"):
        read(pairs)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a = north", r"is not TOML \(Invalid value \(at line 1, column 5\)\)"),
        ("[three]\na = 1", r"the table \[three\] is for no node: its name must be a partition-id"),
        ("[03]\na = 1", r"the table \[03\] is for no node"),
        ("[3]\npartition-id = 1", r"in \[3\], partition-id is a key that the fleet sets itself"),
        ("[3]\na = {x = 1}", r"in \[3\], the value of a is not a number"),
        ('"a b" = 1', "'a b' is not a key"),
        ("a = [1]", "the value of a is not a number"),
    ],
)
def test_a_file_that_is_not_valid_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    with pytest.raises(SettingError, match=rf"^NODE_CONFIG_FILE={tmp_path}/nodes.toml: {problem}"):
        read(file=write(tmp_path, content))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="nodes.toml: cannot be read .No such file or directory.; .*leave"):
        read(file=tmp_path / "nodes.toml")


def test_a_table_for_a_partition_that_the_fleet_does_not_have_is_refused(tmp_path: Path) -> None:
    settings = read(file=write(tmp_path, "[2]\na = 1\n[3]\na = 1\n"))
    settings.check_partitions(4)
    with pytest.raises(SettingError, match=r"\[3\] is for no node: SUPERNODES=3 has partition-ids 0 to 2; correct"):
        settings.check_partitions(3)
