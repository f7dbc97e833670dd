"""RUN_CONFIG: what Flower would ignore is refused, and what passes arrives as Flower itself reads it."""

from pathlib import Path

import pytest
from flwr.common.config import parse_config_args

from bouquet.errors import SettingError
from bouquet.settings.overrides import check_overrides


@pytest.fixture
def app(tmp_path: Path) -> Path:
    config = "num-server-rounds = 3\nlearning-rate = 0.1\nverbose = false\nname = 'x'\nopt.a = 1\nopt.b = 2\n"
    (tmp_path / "pyproject.toml").write_text(f"[tool.flwr.app.config]\n{config}")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "ignored"),
    [
        ("num-server-rounds = 1", "num-server-rounds = 1"),
        ("num-server-rounds: 1", "num-server-rounds: 1"),
        ("num-server-rounds", "num-server-rounds"),
        ("num-server-rounds=1 and verbose=true", "and"),
        ("num-server-rounds= verbose=true", "num-server-rounds="),
        ("num-server-rounds =1", "num-server-rounds =1"),
        ("name=a b", "b"),
        ("name='a'b verbose=true", None),
        ("name='it's'", "s'"),
        ('name="not closed', "closed"),
        ("num-server-rounds=1#verbose=true", "#verbose=true"),
        ("num-server-rounds=1 #verbose=true", "#verbose=true"),
        ("#num-server-rounds=1", "#num-server-rounds=1"),
        ("=1", "=1"),
        ("my.toml verbose=true", "my.toml"),
    ],
)
def test_text_that_flower_ignores_is_refused_and_named(text: str, ignored: str | None, app: Path) -> None:
    with pytest.raises(SettingError) as refused:
        check_overrides(text, app)
    assert str(refused.value).startswith(f"RUN_CONFIG={text}: ")
    if ignored is not None:
        assert f": Flower would ignore `{ignored}`; write " in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "num-server-rounds=1 learning-rate=5e-3",
        "num-server-rounds=1\n verbose=true\tlearning-rate=2",
        "name='a # b = c'",
        'name="a: b"',
        "opt.a=5 opt.b=6",
        "opt={a=5}",
        "learning-rate=nan",
    ],
)
def test_what_passes_is_all_of_what_flower_reads(text: str, app: Path) -> None:
    assert check_overrides(text, app) == text
    assert len(parse_config_args([text])) == text.replace("a # b = c", "").count("=") - text.count("{")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("num-server-rounds = 1", "num-server-rounds=1"),
        ("num-server-rounds: 1, verbose: True", "num-server-rounds=1 verbose=true"),
        ("verbose=False", "verbose=false"),
        ("num-server-rounds=1,learning-rate=5e-3", "num-server-rounds=1 learning-rate=5e-3"),
    ],
)
def test_the_hint_is_the_right_text_where_the_meaning_is_clear(text: str, written: str, app: Path) -> None:
    with pytest.raises(SettingError) as refused:
        check_overrides(text, app)
    assert refused.value.hint == f'write RUN_CONFIG="{written}"'
    assert check_overrides(written, app) == written


@pytest.mark.parametrize("text", ["name=text", "learning-rate=.5", "num-server-rounds==1", "verbose=yes"])
def test_a_value_that_is_not_toml_is_named_in_one_line(text: str, app: Path) -> None:
    with pytest.raises(SettingError, match=f"^RUN_CONFIG={text}: `{text}` is not valid .*; values are TOML") as refused:
        check_overrides(text, app)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["name=[1,2]", "name=2020-01-01"])
def test_a_value_of_another_type_is_refused(text: str, app: Path) -> None:
    with pytest.raises(SettingError, match="the value of name must be a number, true, false or text"):
        check_overrides(text, app)


@pytest.mark.parametrize("text", ["rounds=1", "opt.c=1"])
def test_an_unknown_key_is_named_with_the_keys_that_there_are(text: str, app: Path) -> None:
    key = text.partition("=")[0]
    with pytest.raises(SettingError, match=f"the app has no setting {key}; it has: learning-rate, name, num-server-"):
        check_overrides(text, app)


def test_a_key_that_is_given_twice_is_refused(app: Path) -> None:
    with pytest.raises(SettingError, match="Cannot overwrite a value"):
        check_overrides("verbose=true verbose=false", app)


def test_a_file_is_found_from_the_current_folder_and_passed_on_by_its_absolute_path(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(app)
    file = app / "over ride.toml"
    file.write_text("num-server-rounds = 1\nlearning-rate = 2.5e-3\n[opt]\na = 3\n")
    assert check_overrides("over ride.toml", app) == str(file)
    assert parse_config_args([str(file)]) == {"num-server-rounds": 1, "learning-rate": 2.5e-3, "opt.a": 3}


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot be read .No such file"), ("a = ", "is not TOML"), ("rounds = 1", "has no setting rounds")],
)
def test_a_file_that_is_missing_or_wrong_is_refused(content: str | None, problem: str, app: Path) -> None:
    if content is not None:
        (app / "my.toml").write_text(content)
    with pytest.raises(SettingError, match=problem):
        check_overrides(str(app / "my.toml"), app)


def test_without_a_readable_pyproject_the_keys_are_left_to_flwr(tmp_path: Path) -> None:
    assert check_overrides("anything=1", tmp_path) == "anything=1"
