"""Imports go down the floors, nothing imports a script, and heavy packages wait for their use."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torchxrayvision", "pydicom", "matplotlib", "sklearn", "skimage", "open_clip"}
SCRIPTS = {"train", "sample", "evaluate"}
# modules and packages of ldm/, lowest first; those in one string may import each other
FLOORS = [
    ["config rng fingerprint images cli devices atomic world"],
    ["schedule", "models kernels", "data", "metrics"],
    [
        """guidance samplers weights text_weights judge_weights rename sources safe_pickle
        folder_configs export"""
    ],
    ["features text_features pipeline speed compiled edit order gallery adapters projected_text"],
    ["train"],  # is handed a Method, so it knows none
    ["adapt report"],
]
PLACES = {
    name: (height, group)
    for height, groups in enumerate(FLOORS)
    for group in groups
    for name in group.split()
}
MODULES = sorted(p.relative_to(ROOT) for p in (ROOT / "ldm").rglob("*.py"))
MODULES.remove(Path("ldm/__init__.py"))
SCRIPT_FILES = sorted(p.relative_to(ROOT) for p in ROOT.glob("*.py"))


def imports(node: ast.AST, at_once: bool = False) -> Iterator[str]:
    """What is imported, as `package.module.name`; `at_once`: only when the module itself is."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif not (at_once and waits(child)):
            yield from imports(child, at_once)


def waits(node: ast.AST) -> bool:
    checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    return checking or isinstance(node, ast.FunctionDef)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_down_the_floors(module: Path) -> None:
    """A module has a floor, and what it imports of ldm is below it or its neighbour there."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    assert module.with_suffix("").parts[1] in PLACES, f"which floor of FLOORS is {module} on?"
    height, group = PLACES[module.with_suffix("").parts[1]]
    for name in imports(tree):
        package, _, rest = name.partition(".")
        assert package not in SCRIPTS, f"{module} imports the script {package}"
        if package == "ldm" and rest != "__version__":
            below, neighbours = PLACES[rest.partition(".")[0]]
            assert below < height or neighbours == group, f"{module} imports {name}"


@pytest.mark.parametrize("module", [*MODULES, *SCRIPT_FILES], ids=str)
def test_heavy_packages_are_imported_where_they_are_used(module: Path) -> None:
    """Importing a module of ldm or a script imports no package that takes seconds or is optional.

    Scripts do not even import torch, so that --help and a mistyped option answer at once.
    """
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    heavy = HEAVY if module in MODULES else HEAVY | {"torch"}
    assert not {name.partition(".")[0] for name in imports(tree, at_once=True)} & heavy


def test_sampling_starts_without_what_it_does_not_need() -> None:
    """Nothing that sample.py imports brings along phantoms, training or reports: a second."""
    found, todo = set(), [Path("sample.py")]
    while todo:
        module = todo.pop()
        found.add(module)
        tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
        at_once = module != Path("sample.py")  # whose own imports wait for the options
        for name in imports(tree, at_once):
            parts = name.split(".")
            places = [Path(*parts[:i]) for i in range(1, len(parts) + 1)]
            files = [f for p in places for f in (p.with_suffix(".py"), p / "__init__.py")]
            todo += [file for file in files if file in MODULES and file not in found]
    rooms = {file.parts[1] for file in found if file.parts[0] == "ldm"}
    assert {"pipeline.py", "edit", "models"} <= rooms
    assert not rooms & {"data", "metrics", "train", "adapt", "report"}
