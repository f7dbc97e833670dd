"""Rules of the project that no linter knows: names, documents, versions."""

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGES = (PROJECT / "app", PROJECT / "deploy" / "bouquet", PROJECT / "benchmarks")
DOCUMENTS = sorted(
    [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), *(PROJECT / "data").rglob("*.md")],
)


def relative(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def test_no_two_modules_have_the_same_name() -> None:
    modules = [path.stem for package in PACKAGES for path in package.rglob("*.py") if not path.stem.startswith("__")]
    assert [name for name, count in Counter(modules).items() if count > 1] == []


def test_no_test_module_imports_another() -> None:
    for path in (PROJECT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not re.search(r"(^|\.)test_", node.module), f"{relative(path)}:{node.lineno}"


def test_the_version_is_written_in_one_place() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    code = [path for package in PACKAGES for path in package.rglob("*.py")]
    for path in [*code, *PROJECT.glob("Dockerfile.*"), PROJECT / "docker-compose.yml", PROJECT / "Makefile"]:
        assert f'"{version}"' not in path.read_text(encoding="utf-8"), relative(path)
    assert f"## {version} - " in (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_readme_is_at_most_150_lines() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_decision_records_are_short() -> None:
    for path in (PROJECT / "docs" / "decisions").glob("[0-9]*.md"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 80, relative(path)


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_a_document_has_lines_of_at_most_120_characters_and_links_that_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        assert len(line) <= 120, f"{relative(document)}:{number}"
    links = re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    for link in (inline or reference for inline, reference in links):
        target = link.partition("#")[0]
        if target and "://" not in target:
            assert (document.parent / target).exists(), f"{relative(document)}: {link}"
