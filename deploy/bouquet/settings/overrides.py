"""RUN_CONFIG: overrides of the app's run-config, which Flower ignores in part if they are written in another way.

Flower finds `key=value` pairs by a regular expression and ignores all other text without a word.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bouquet.errors import SettingError

NAME = "RUN_CONFIG"
PAIR = re.compile(r"(\S+?)=('[^']*'|\"[^\"]*\"|\S+)")
"""What Flower takes from the text (`flwr.common.config.parse_config_args`)."""
PAIRS_HINT = "write key=value pairs with spaces between them only: num-server-rounds=3 verbose=false name='some text'"
VALUES_HINT = "values are TOML: 3, 5e-3, true, or text in quotes; for example num-server-rounds=3 name='some text'"


def check_overrides(text: str, app: Path) -> str:
    """Return the overrides as `flwr run --run-config` takes them: as written, or the absolute path of a TOML file.

    Args:
        text: `key=value` pairs, or the path of a TOML file, relative to the current folder.
        app: The app's folder, whose `pyproject.toml` has all keys.

    Raises:
        SettingError: Flower would ignore a part of it, cannot read it, or would reject a key without naming it.
    """
    if text.endswith(".toml"):
        return _check_file(text, app)
    if ignored := _ignored_part(text):
        raise SettingError(NAME, text, f"Flower would ignore `{ignored}`", _corrected(text) or PAIRS_HINT)
    pairs = [f"{key} = {value}" for key, value in PAIR.findall(text)]
    for pair in pairs:
        _parse(pair, text, f"`{pair.replace(' = ', '=', 1)}` is not valid")
    _check_values(_parse("\n".join(pairs), text, "it is not valid"), text, app)
    return text


def _check_file(text: str, app: Path) -> str:
    path = Path(text).expanduser().resolve()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "correct the path, or give key=value pairs without a file"
        raise SettingError(NAME, text, f"{path} cannot be read ({error.strerror})", hint) from error
    except ValueError as error:
        raise SettingError(NAME, text, f"{path} is not TOML ({error})", "correct the file") from error
    _check_values(values, text, app)
    return str(path)


def _ignored_part(text: str) -> str:
    """Return the first part of a text that Flower ignores; empty for none."""
    end = 0
    for match in PAIR.finditer(text):
        if between := text[end : match.start()].strip():
            return between
        key, value = match.groups()
        if _is_toml(f"{key} = {value} ]"):  # the bracket is an error, unless it is in a comment
            return match[0][match[0].index("#") :]
        end = match.end()
    return text[end:].strip()


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _parse(toml: str, text: str, problem: str) -> dict[str, Any]:
    try:
        return tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        reason = re.sub(r" \(at .*", "", str(error))  # the position is one in the text that Flower makes of it
        raise SettingError(NAME, text, f"{problem} ({reason})", _corrected(text) or VALUES_HINT) from error


def _check_values(values: dict[str, Any], text: str, app: Path) -> None:
    known = _known_keys(app)
    for key, value in _flatten(values):
        if not isinstance(value, bool | int | float | str):
            raise SettingError(NAME, text, f"the value of {key} must be a number, true, false or text", VALUES_HINT)
        if known is not None and key not in known:
            hint = f"it has: {', '.join(sorted(known)) or 'none, see [tool.flwr.app.config] in its pyproject.toml'}"
            raise SettingError(NAME, text, f"the app has no setting {key}", hint)


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _known_keys(app: Path) -> set[str] | None:
    """Return the keys of an app's run-config; None where its `pyproject.toml` is one that `flwr` has to judge."""
    try:
        project = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
        return {key for key, _ in _flatten(project["tool"]["flwr"]["app"].get("config", {}))}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _corrected(text: str) -> str:
    """Return a hint that spells out the right text; empty where it is not clear what the text means."""
    if re.search(r"['\"#]", text):
        return ""
    spaced = re.sub(r"\s*[=:]\s*", "=", text.replace(",", " ").replace(";", " "))
    corrected = re.sub(r"=(True|False)\b", lambda value: value[0].lower(), " ".join(spaced.split()))
    pairs = "\n".join(f"{key} = {value}" for key, value in PAIR.findall(corrected))
    return f'write {NAME}="{corrected}"' if pairs and _is_toml(pairs) and not _ignored_part(corrected) else ""
