"""The project keeps what its README and its rules promise."""

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from ldm.config import ModelConfig, load_config
from ldm.training.run_config import load_run

ROOT = Path(__file__).resolve().parent.parent
BANNED = {"diffusers", "transformers", "accelerate"}


def test_ci_runs_the_readmes_test_command() -> None:
    """.ci/run holds, word for word, the README's command that passes the tests."""
    blocks = re.findall(r"```bash\n(.+?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    commands = [block for block in blocks if block.endswith("-m pytest")]
    assert len(commands) == 1
    assert commands[0] in (ROOT / ".ci" / "run").read_text().splitlines()


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
    """Files in configs/ are training runs, but for small.yaml: the sizes of the built-in model."""
    if path.stem == "small":
        assert load_config(ModelConfig, path).image_size == 128
    else:
        run = load_run(path)
        assert run.train.out == f"runs/{path.stem}"
        assert run.model.config is None or (ROOT / run.model.config).is_file()
