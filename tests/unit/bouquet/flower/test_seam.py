"""Flower's private API is imported in bouquet.flower only, where each import and each replacement is listed."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from bouquet.flower.private_api import PRIVATE_IMPORTS
from bouquet.flower.replacements import REPLACEMENTS

ROOT = Path(__file__).parents[4]
DEPLOY = ROOT / "deploy"
SEAM = DEPLOY / "bouquet" / "flower"
PUBLIC = {
    *("flwr.app", "flwr.clientapp", "flwr.clientapp.mod", "flwr.clientapp.typing"),
    *("flwr.serverapp", "flwr.serverapp.strategy", "flwr.simulation"),
}
"""Flower's public modules: names from others are private."""

# What other branches are about to remove. An entry that is no longer needed fails a test.


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def at(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def is_flowers(module: str) -> bool:
    return module == "flwr" or module.startswith("flwr.")


def private_imports(path: Path) -> Iterator[tuple[ast.AST, str]]:
    """What a module imports from Flower's private modules: `module.name`."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (
                (node, alias.name) for alias in node.names if is_flowers(alias.name) and alias.name not in PUBLIC
            )
        elif isinstance(node, ast.ImportFrom) and is_flowers(node.module or "") and node.module not in PUBLIC:
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def found() -> dict[str, tuple[str, ...]]:
    """What each module of the seam imports."""
    imports = {path.stem: tuple(sorted({name for _, name in private_imports(path)})) for path in sources(str(SEAM))}
    return {module: names for module, names in imports.items() if names}


def table() -> str:
    """The value of PRIVATE_IMPORTS that fits the code, ready to be pasted."""
    lines = ["PRIVATE_IMPORTS: dict[str, tuple[str, ...]] = {"]
    for module, names in found().items():
        lines += [f'    "{module}": (', *(f'        "{name}",' for name in names), "    ),"]
    return "\n".join([*lines, "}"])


def test_private_names_of_flower_are_imported_in_the_seam_only() -> None:
    offences = [
        f"{at(path, node)}: {name}"
        for path in sources("deploy/bouquet", "app", "benchmarks")
        if not path.is_relative_to(SEAM)
        for node, name in private_imports(path)
    ]
    assert not offences, "import these through bouquet.flower:\n" + "\n".join(offences)


def test_bouquet_outside_the_seam_imports_nothing_of_flower() -> None:
    offences = []
    for path in sources("deploy/bouquet"):
        if path.is_relative_to(SEAM):
            continue
        for node in ast.walk(parse(path)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            offences += [f"{at(path, node)}: {module}" for module in modules if is_flowers(module)]
    assert not offences, "import these through bouquet.flower:\n" + "\n".join(offences)


def test_each_private_import_is_listed_and_each_listed_one_is_imported() -> None:
    assert found() == PRIVATE_IMPORTS, f"paste this into deploy/bouquet/flower/private_api.py:\n\n{table()}\n"


@pytest.mark.parametrize("name", sorted({name for names in PRIVATE_IMPORTS.values() for name in names}))
def test_a_listed_name_exists_in_the_installed_flower(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    try:
        assert hasattr(import_module(module), attribute)
    except AssertionError:
        import_module(name)


@pytest.mark.parametrize(("module", "name"), REPLACEMENTS)
def test_a_listed_replacement_exists_in_flower_and_is_made(module: str, name: str) -> None:
    owner_name, _, attribute = name.rpartition(".")
    owner = getattr(import_module(module), owner_name) if owner_name else import_module(module)
    assert hasattr(owner, attribute), f"{module} no longer has `{name}`"
    users = []
    for path in sources(str(SEAM)):
        constants = {node.value for node in ast.walk(parse(path)) if isinstance(node, ast.Constant)}
        if path.stem not in ("replacements", "private_api") and {module, name} <= constants:
            users.append(path.stem)
    assert users, f"nobody replaces {module}.{name}: remove it from REPLACEMENTS"


def test_flowers_clocks_are_not_replaced() -> None:
    assert not {key for key in REPLACEMENTS if key[1] in ("time", "sleep")}


def offences_against_flower(path: Path) -> Iterator[str]:
    """`setattr`, and assignments to attributes of what the module has imported."""
    tree = parse(path)
    imported = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            yield f"{at(path, node)}: setattr"
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            owner = target.value if isinstance(target, ast.Attribute) else None
            while isinstance(owner, ast.Attribute):
                owner = owner.value
            if isinstance(owner, ast.Name) and owner.id in imported - {"os", "sys"}:  # os.environ, sys.argv
                yield f"{at(path, node)}: {ast.unparse(target) if target else ''} = ..."


def test_nothing_of_flower_is_changed_but_by_replace() -> None:
    offences = [
        offence
        for path in sources("deploy", "app", "benchmarks")
        if path.stem != "replacements"
        for offence in offences_against_flower(path)
    ]
    assert not offences, "\n".join(offences)


def test_attributes_are_not_written_behind_a_classs_back() -> None:
    offences = [
        at(path, node)
        for path in sources("deploy")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Attribute) and node.attr == "__dict__"
    ]
    assert not offences, "\n".join(offences)
