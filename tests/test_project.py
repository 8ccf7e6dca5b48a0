"""The project keeps what its README, its documentation and its rules promise."""

import fnmatch
import json
import pkgutil
import re
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

import ldm
from ldm.config import ModelConfig
from ldm.pictures import image_files
from ldm.pipeline import Sampling
from ldm.system.cli import load_config
from ldm.training.training_run import load_run
from ldm.weights.tensor_names import names

ROOT = Path(__file__).resolve().parent.parent
BANNED = {"diffusers", "transformers", "accelerate"}
DOCS = ROOT / "docs"
PAGES = [  # all that is read as a page
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
    *(ROOT / folder / "README.md" for folder in ("weights", "lessons")),
    *sorted(DOCS.rglob("*.md")),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def blocks(language: str) -> list[str]:
    """The code blocks of the README."""
    return re.findall(rf"```{language}\n(.+?)\n```", README, re.DOTALL)


def cells(page: Path) -> list[str]:
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    return [cell.strip() for row in rows for cell in row.strip().strip("|").split("|")]


def links(page: Path) -> list[tuple[Path, str]]:
    """The files that a page links to, and the heading's anchor in each."""
    text = re.sub(r"```.+?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    parts = [unquote(link).partition("#") for link in found if "://" not in link]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in parts]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_ci_runs_the_readmes_test_command() -> None:
    """.ci/run holds, word for word, the README's command that passes the tests."""
    commands = [block for block in blocks("bash") if block.endswith("-m pytest")]
    assert len(commands) == 1
    assert commands[0] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_readme_is_short() -> None:
    """The README has at most 130 lines, 9,000 bytes and two pictures."""
    assert len(README.splitlines()) <= 130
    assert len(README.encode()) <= 9000
    assert len(re.findall(r"!\[", README)) <= 2


@each_page
def test_no_cell_of_a_table_is_a_paragraph(page: Path) -> None:
    """A cell has at most 120 characters."""
    assert not [cell for cell in cells(page) if len(cell) > 120]


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link is to a file or folder that exists, each anchor to one of its headings or,
    in code, to a line."""
    assert not [str(path) for path, _ in links(page) if not path.exists()]
    inside = [(path, a) for path, a in links(page) if a and path.suffix == ".md"]
    assert not [(str(path), a) for path, a in inside if a not in anchors(path)]


def test_the_books_page_names_each_file_and_the_right_lines() -> None:
    """docs/book.md has a section for each file of the book, in order; the line of each link holds
    the link's text; each name in the table of tensors is one of Stable Diffusion's."""
    text = (DOCS / "book.md").read_text(encoding="utf-8")
    order = re.findall(r"^    (\w+)  ", ldm.__doc__ or "", re.MULTILINE)
    assert re.findall(r"^## \d+\. (\w+)$", text, re.MULTILINE) == order
    for shown, name, number in re.findall(r"\[`([^`]+)`\]\(\.\./ldm/(\w+\.py)#L(\d+)\)", text):
        line = (ROOT / "ldm" / name).read_text(encoding="utf-8").splitlines()[int(number) - 1]
        assert shown in line, f"{name}, line {number} does not hold {shown}"
    known = {name for some in names(ModelConfig(), "compvis").values() for name in some}
    tensors = re.findall(r"^\| `([\w.]+\.\*)` \|", text, re.MULTILINE)
    assert len(tensors) > 15
    assert not [name for name in tensors if not fnmatch.filter(known, name)]


@each_page
def test_paths_and_names_in_pages_exist(page: Path) -> None:
    """Each file of the tree, and each name under `ldm`, that a page mentions is there."""
    text = page.read_text(encoding="utf-8")
    folders = "ldm|tests|benchmarks|configs|docs|lessons"
    paths = re.findall(rf"(?<![\w./~-])(?:{folders})/[\w./-]*\w(?![\w$])", text)
    assert not [path for path in paths if not (ROOT / path).exists()]
    modules = re.findall(r"(?<=-m )benchmarks\.(\w+)", text)
    assert not [name for name in modules if not (ROOT / "benchmarks" / f"{name}.py").is_file()]
    for name in re.findall(r"(?<![\w./])ldm(?:\.\w+)+", text):
        pkgutil.resolve_name(name)  # raises ImportError or AttributeError for what is not there


def test_every_page_and_picture_of_docs_is_listed() -> None:
    """docs/README.md links each file of docs, and README.md each page of docs."""
    files = {path for path in DOCS.rglob("*") if path.is_file()}
    index = DOCS / "README.md"
    assert files - {index} == files & {path for path, _ in links(index)}
    assert {path for path in files if path.suffix == ".md"} <= {
        path for path, _ in links(ROOT / "README.md")
    }


def test_the_readme_is_two_hops_from_the_step_the_guidance_and_the_loss() -> None:
    """README.md links the files of the DDIM step, of guidance and of the loss above its picture."""
    top = README.partition("![")[0]
    for path, line in {
        "ldm/samplers.py": "class DDIM(",
        "ldm/guidance.py": "def guide(",
        "ldm/loss.py": "def diffusion_loss(",
    }.items():
        assert f"]({path})" in top
        assert line in (ROOT / path).read_text(encoding="utf-8")


def test_the_readmes_python_draws_what_sample_py_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's loop runs as it stands; its picture is that of LatentDiffusion.draw with DDIM,
    within one grey level (it encodes both prompts together)."""
    (code,) = blocks("python")
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    monkeypatch.chdir(tmp_path)
    try:
        exec(compile(code, "README.md", "exec"), {})
    finally:
        torch.set_grad_enabled(True)
    sampling = Sampling(sampler="ddim", guidance=2.0, height=128, width=128)
    drawn = ldm.load("weights").draw(["lung xray with pleural effusion"], [0], sampling)
    levels = image_files.to_integers(drawn[0]).astype(int)
    shown = image_files.to_integers(image_files.load("chest.png")).astype(int)
    assert abs(shown - levels).max() <= 1


def test_no_library_does_our_diffusion() -> None:
    """Neither the code nor its requirements name a library that has the diffusion ready-made."""
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    required = settings["options"]["install_requires"] + settings["options.extras_require"]["test"]
    assert not BANNED & set(re.findall(r"[\w-]+", required))
    for path in [*ROOT.glob("*.py"), *ROOT.glob("ldm/**/*.py"), *ROOT.glob("tests/*.py")]:
        imported = re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.MULTILINE)
        assert not BANNED & set(imported), path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_config_can_be_read(path: Path) -> None:
    """Files in configs/ are training runs, but for some: the sizes of models."""
    sizes = {"small": 128, "model_body": 128, "small_256": 256, "model_256": 256}
    sizes |= {"sd2_base": 512, "sd2": 768}
    if size := sizes.get(path.stem):
        assert load_config(ModelConfig, path).image_size == size
    else:
        run = load_run(path)
        assert run.train.out == f"runs/{path.stem}"
        assert run.model.config is None or (ROOT / run.model.config).is_file()


def test_planted_bugs_fit_the_code() -> None:
    """The text that each bug of tests/planted.py replaces is in its file once; its tests exist."""
    for bug in json.loads((ROOT / "tests/planted.json").read_text(encoding="utf-8")):
        code = (ROOT / bug["file"]).read_text(encoding="utf-8")
        assert code.count(bug["old"]) == 1, bug["name"]
        assert (ROOT / bug["test"]).is_file(), bug["name"]
