"""Writes the README of the Helm chart: its introduction, then all values, made from values.yaml.

    python scripts/chart_readme.py           write deploy/helm/bouquet/README.md
    python scripts/chart_readme.py --check   exit with code 1 if it is not up to date

In values.yaml a comment that starts with `# --` describes the key below it.
"""

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CHART = Path(__file__).parents[1] / "deploy" / "helm" / "bouquet"
README = CHART / "README.md"
TEMPLATE = CHART / "README.md.template"
WIDTH = 120
PLACE = "<!-- values -->\n"
_KEY = re.compile(r"(?P<indent> *)(?P<key>[\w.-]+):")


class Value(NamedTuple):
    """One value of the chart.

    Attributes:
        path: Its keys, from the outermost one.
        default: Its default, as YAML reads it.
        description: What the comment says.
    """

    path: tuple[str, ...]
    default: Any
    description: str


def read_values(text: str) -> Iterator[Value]:
    """Yield the described values of a values.yaml, in its order."""
    document = yaml.safe_load(text)
    keys: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("# ") and comment:
            comment.append(stripped.removeprefix("# "))
        elif match := _KEY.match(line):
            keys[len(match["indent"]) // 2 :] = [match["key"]]
            if comment:
                default = document
                for key in keys:
                    default = default[key]
                yield Value(tuple(keys), default, " ".join(comment))
            comment = []


def entries(values: list[Value]) -> str:
    """Return a list of values in Markdown, with a heading for each outermost key that has keys below it."""
    lines: list[str] = []
    section = None
    for value in values:
        name = f"`{value.path[0]}`" if len(value.path) > 1 else "Names and labels"
        if name != section:
            lines += ["", f"### {name}", ""]
            section = name
        text = f"- `{'.'.join(value.path)}` ({_shown(value.default)}): {value.description}"
        lines += textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).strip() + "\n"


def readme() -> str:
    """Return the README that belongs to values.yaml."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    before, after = TEMPLATE.read_text(encoding="utf-8").split(PLACE)
    return f"{before}{entries(list(read_values(text)))}{after}"


def _shown(default: Any) -> str:
    if default == "":
        return "not set"
    if isinstance(default, str):
        return f"`{default}`"
    return f"`{json.dumps(default)}`"


def main() -> None:
    """Write the README, or check it."""
    expected = readme()
    if "--check" in sys.argv[1:]:
        if not README.exists() or README.read_text(encoding="utf-8") != expected:
            sys.exit(f"{README} is not up to date: run python scripts/chart_readme.py")
    else:
        README.write_text(expected, encoding="utf-8")


if __name__ == "__main__":
    main()
