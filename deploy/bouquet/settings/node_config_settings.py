"""NODE_CONFIG and NODE_CONFIG_FILE: what ClientApps find in `context.node_config`, for all nodes or for one."""

import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bouquet.errors import SettingError
from bouquet.settings.env import Environment, text

NAME, FILE_NAME = "NODE_CONFIG", "NODE_CONFIG_FILE"
Value = str | int | float | bool
RESERVED = ("partition-id", "num-partitions")
"""Keys that every node gets from the fleet."""
INT64 = range(-(2**63), 2**63)
KEY = re.compile(r"[A-Za-z0-9_-]+")
PAIR = re.compile(rf"""\s*({KEY.pattern})\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^\s"'#]+)(?=\s|$)""")
PAIRS_HINT = """write key=value pairs, with text in quotes: NODE_CONFIG='site="north" db-port=5432'"""
FILE_HINT = 'write site = "north" for all nodes, and the same below a line [3] for the node with partition-id 3'


@dataclass(frozen=True)
class NodeConfigSettings:
    """Keys of the node config, next to those of the fleet (`RESERVED`).

    Attributes:
        for_all: The keys of all nodes.
        for_one: By partition-id, the keys of single nodes; they win.
        file: The file of NODE_CONFIG_FILE; None where that is not set.
        digest: Of the file's content; empty without a file.
    """

    for_all: Mapping[str, Value] = field(default_factory=dict)
    for_one: Mapping[int, Mapping[str, Value]] = field(default_factory=dict)
    file: Path | None = None
    digest: str = ""

    @classmethod
    def read(cls, environment: Environment = os.environ, file: Path | None = None) -> Self:
        """Read the settings.

        Args:
            environment: The environment; `NODE_CONFIG` wins over keys at the top of the file.
            file: The file of NODE_CONFIG_FILE, where this process finds it.

        Raises:
            SettingError: They are not valid.
        """
        for_all: dict[str, Value] = {}
        for_one: dict[int, dict[str, Value]] = {}
        digest = ""
        if file is not None:
            content = _content(file)
            for_all, for_one = _parse_file(content, file)
            digest = hashlib.sha256(content).hexdigest()[:12]
        return cls({**for_all, **_parse_pairs(text(environment, NAME, ""))}, for_one, file, digest)

    def of(self, partition_id: int) -> dict[str, Value]:
        """Return the keys of the node with this partition-id."""
        return {**self.for_all, **self.for_one.get(partition_id, {})}

    def check_partitions(self, supernodes: int) -> None:
        """Raise a `SettingError` if the file has a table for a partition that a fleet of this size does not have."""
        for partition_id in sorted(self.for_one):
            if partition_id >= supernodes:
                problem = f"[{partition_id}] is for no node: SUPERNODES={supernodes} has partition-ids 0 to "
                hint = "correct the number, or set SUPERNODES; a node on another machine takes its keys along: "
                raise SettingError(
                    FILE_NAME, self.file, f"{problem}{supernodes - 1}", f"{hint}NODE_CONFIG=... make join-command"
                )


def notation(values: Mapping[str, Value]) -> str:
    """Return a node config as `flower-supernode --node-config` takes it, and NODE_CONFIG too: `key=value` pairs."""
    return " ".join(f"{key}={_toml(value)}" for key, value in values.items())


def _toml(value: Value) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return str(value).lower()  # true, 5432, 1e-05, inf


def _quoted(value: str) -> str:
    """Return a string in TOML's notation, on one line and without a `"` inside.

    Flower looks for the closing quote with a regular expression, which does not know that a backslash may escape one.
    """
    escaped = value.replace("\\", "\\\\")
    return '"' + re.sub(r'["\x00-\x1f\x7f]', lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        hint = f"correct it, or leave {FILE_NAME} out"
        raise SettingError(FILE_NAME, file, f"cannot be read ({error.strerror})", hint) from error


def _parse_file(content: bytes, file: Path) -> tuple[dict[str, Value], dict[int, dict[str, Value]]]:
    try:
        parsed = tomllib.loads(content.decode())
    except ValueError as error:
        raise SettingError(FILE_NAME, file, f"is not TOML ({error})", FILE_HINT) from error
    for_one: dict[int, dict[str, Value]] = {}
    for key in [key for key, value in parsed.items() if isinstance(value, dict)]:
        table = parsed.pop(key)
        if not re.fullmatch(r"0|[1-9]\d{0,3}", key):
            problem = f"the table [{key}] is for no node: its name must be a partition-id"
            raise SettingError(FILE_NAME, file, problem, FILE_HINT)
        for_one[int(key)] = _checked(table, FILE_NAME, file, f"in [{key}], ")
    return _checked(parsed, FILE_NAME, file), for_one


def _parse_pairs(pairs: str) -> dict[str, Value]:
    values: dict[str, Any] = {}
    end = 0
    while rest := pairs[end:].strip():
        match = PAIR.match(pairs, end)
        if match is None:
            raise SettingError(NAME, pairs, f"`{rest}` is not a key=value pair", PAIRS_HINT)
        key, value = match.groups()
        if key in values:
            raise SettingError(NAME, pairs, f"the key {key} is there twice", "leave one of them out")
        try:
            values[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            problem = f"`{value}` is neither a number, nor true or false, nor text in quotes"
            raise SettingError(NAME, pairs, problem, PAIRS_HINT) from None
        end = match.end()
    return _checked(values, NAME, pairs)


def _checked(values: dict[str, Any], setting: str, given: object, where: str = "") -> dict[str, Value]:
    """Return the keys if each is one that Flower passes on, with a value that it passes on."""
    hint = PAIRS_HINT if setting == NAME else FILE_HINT
    for key, value in values.items():
        if not KEY.fullmatch(key):
            raise SettingError(setting, given, f"{where}{key!r} is not a key: use letters, digits, _ and -", hint)
        if key in RESERVED:
            problem = f"{where}{key} is a key that the fleet sets itself"
            raise SettingError(setting, given, problem, "leave it out: it follows from PARTITION_ID and SUPERNODES")
        if not isinstance(value, Value):
            raise SettingError(
                setting, given, f"{where}the value of {key} is not a number, true, false or text", "write one value"
            )
        if isinstance(value, int) and value not in INT64:
            raise SettingError(setting, given, f"{where}{key} is beyond 64 bits", "give a smaller number, or text")
        if isinstance(value, str) and not value.isprintable() and _has_surrogate(value):
            raise SettingError(setting, given, f"{where}the value of {key} is not UTF-8", "write it in UTF-8")
    return values


def _has_surrogate(value: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in value)
