"""The house: a book at the root of ldm/, rooms that it does not know, and how large each may be."""

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LDM = ROOT / "ldm"
BOOK = [
    *("config", "rng", "schedule", "guidance", "samplers", "attention", "blocks", "unet"),
    *("vae", "clip", "pipeline", "loss", "lora"),
]
ROOMS = [  # lowest first
    *("system", "pictures", "weights", "text", "data", "fast", "drawing", "metrics"),
    *("judging", "training", "report"),
]
HEAVY = {"torchxrayvision", "pydicom", "matplotlib", "sklearn", "skimage", "open_clip", "triton"}
HEAVY |= {"cv2"}
SCRIPTS = sorted(ROOT.glob("*.py"))
FILES = {  # {"ldm.unet": its path}
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(LDM.rglob("*.py"))
}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def lines(*paths: Path) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def imported(node: ast.AST, at_once: bool = False) -> Iterator[str]:
    """What is imported, as `package.module.name`; `at_once`: only when the module itself is."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif not (at_once and waits(child)):
            yield from imported(child, at_once)


def waits(node: ast.AST) -> bool:
    checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    return checking or isinstance(node, ast.FunctionDef)


def needs(module: str) -> set[str]:
    """The modules of ldm that a module imports, at once or later."""
    found = set()
    for name in imported(tree(FILES[module])):
        name = name if name in FILES else name.rpartition(".")[0]
        if name in FILES and name != module:
            found.add(name)
    return found - {"ldm"}


def room(module: str) -> str:
    """The room of a module; "" for the book."""
    return module.split(".")[1] if module.split(".")[1] in ROOMS else ""


def test_the_root_holds_the_book_and_nothing_else() -> None:
    """Rule 1: the named files, together at most 1,750 lines, none over 300."""
    found = {path.stem: path for path in LDM.glob("*.py")}
    assert found.keys() == {"__init__", *BOOK}
    assert {path.name for path in LDM.iterdir() if path.is_dir()} - {"__pycache__"} == {*ROOMS}
    assert not {name for name, path in found.items() if lines(path) > 300}
    assert lines(*found.values()) <= 1750


@pytest.mark.parametrize("name", BOOK)
def test_the_book_imports_itself_alone(name: str) -> None:
    """Rule 2: of ldm a file of the book imports files of the book."""
    assert needs(f"ldm.{name}") <= {f"ldm.{other}" for other in BOOK}


def test_rooms_import_lower_rooms_without_a_cycle() -> None:
    """Rule 3: of ldm a room imports the book, the rooms below it and itself, never in a circle."""
    graph = {module: needs(module) for module in FILES if module != "ldm"}
    floors = {"": -1} | {name: floor for floor, name in enumerate(ROOMS)}
    up = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if floors[room(other)] > floors[room(module)]
    ]
    assert not up
    TopologicalSorter(graph).prepare()  # raises CycleError, naming the circle


def test_names_are_given_once() -> None:
    """Rule 4: no two files, and no two public classes, have the same name."""
    stems = Counter(path.stem for path in FILES.values() if path.stem[0] != "_")
    classes = Counter(
        node.name
        for path in FILES.values()
        for node in tree(path).body
        if isinstance(node, ast.ClassDef) and node.name[0] != "_"
    )
    assert not [name for name, count in (stems + classes).items() if count > 1]


@pytest.mark.parametrize("path", [*FILES.values(), *SCRIPTS], ids=lambda path: path.stem)
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    """Importing a module of ldm or a script imports no package that takes seconds or is optional.

    Scripts do not even import torch, so that --help and a mistyped option answer at once.
    """
    heavy = HEAVY | {"torch"} if path in SCRIPTS else HEAVY
    if path.parts[-2:] not in {("fast", "fused_attention.py"), ("fast", "flash_attention.py")}:
        assert not {name.partition(".")[0] for name in imported(tree(path), at_once=True)} & heavy


BUDGETS = {  # rule 5: lines
    "ldm": 27_300,
    "ldm/report": 7_780,
    "ldm/data": 6_930,
    "ldm/weights": 2_500,
    "tests": 23_900,
}


@pytest.mark.parametrize(("folder", "most"), BUDGETS.items())
def test_a_folder_stays_within_its_budget(folder: str, most: int) -> None:
    """Rule 5: an addition that does not fit deletes elsewhere first (README: test_project.py)."""
    assert lines(*(ROOT / folder).rglob("*.py")) <= most


TRACE = """
import json, runpy, sys
root, sys.argv = sys.argv[1], sys.argv[2:]
files = set()

def note(frame, event, argument):
    code = frame.f_code
    # flag 1: the code of a function, not of a class body
    if event == "call" and code.co_flags & 1 and code.co_filename.startswith(root):
        files.add(code.co_filename[len(root) + 1 :])

sys.setprofile(note)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code
finally:
    sys.setprofile(None)
    print(json.dumps(sorted(files)))
"""
SMALL_RUN = ["train.steps=1", "method.prior_images=1", "data.phantoms=40", "train.sample_every=0"]


@pytest.mark.parametrize(
    ("command", "most"),
    [
        (["sample.py", "--prompt", "lung xray", "--n", "1", "--steps", "2"], 20),
        (["train.py", "configs/unet_prior.yaml", *SMALL_RUN], 28),
    ],
    ids=["sample", "train"],
)
def test_a_command_runs_through_few_files(command: list[str], most: int, tmp_path: Path) -> None:
    """Rule 6: so many files of ldm have a function that the command calls.

    Not counted are those of data/phantom, which draw the images that a cache keeps.
    """
    training = [f"train.out={tmp_path / 'run'}", f"data.cache={tmp_path / 'cache'}"]
    out = training if command[0] == "train.py" else ["--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", TRACE, str(LDM), *command, *out],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    files = [name for name in json.loads(done.stdout.splitlines()[-1]) if "phantom/" not in name]
    assert len(files) <= most, files
