"""The tiny twin of SD v1.4 as files of every layout, filled with pseudo-random weights."""

import gzip
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pytest
import torch
import yaml
from pseudo import fill
from safetensors.torch import save_file
from torch import Tensor

import ldm
from ldm.config import ModelConfig
from ldm.data import DataConfig
from ldm.data.caption_corpus import open_texts
from ldm.pipeline import LatentDiffusion
from ldm.system.cli import load_config
from ldm.text.bert import Bert, BertConfig
from ldm.text.bert_files import save_bert
from ldm.text.wordpiece import SPECIAL, WordPiece, words
from ldm.training.trainer import Trainer
from ldm.training.training_run import build_method, load_run
from ldm.weights.export import save
from ldm.weights.loading import PARTS, load_parts
from ldm.weights.weight_files import Parts, read

GOLDENS = Path(__file__).parent / "goldens"
POSITION_IDS = "cond_stage_model.transformer.text_model.embeddings.position_ids"
# what diffusers called the VAE's attention before its version 0.17
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

SIZES = {
    "image_size": 32,
    "vae": {"image_channels": 1, "channels": [8], "res_blocks": 1, "groups": 4, "patch": 4},
    "text": {"width": 16, "layers": 1, "heads": 2},
    "unet": {
        "channels": [16, 32],
        "attention": [False, True],
        "res_blocks": 1,
        "heads": 2,
        "context_dim": 16,
        "groups": 4,
    },
    "schedule": {"prediction": "v", "final_alpha_bar": "one"},
}
KINDS = [
    {"finding": "no finding", "images": 2},
    {"finding": "Effusion", "images": 2, "suffix": " X"},
]


# made up: two impressions of each class, of which some words differ
TOY = {
    "Cardiomegaly": ("The heart is enlarged.", "Stable cardiomegaly, lungs clear."),
    "No Finding": ("No acute disease.", "Normal chest."),
    "Pleural Effusion": ("Small left pleural effusion.", "Fluid in the right pleural space."),
    "Pneumothorax": ("Air beside the lung: pneumothorax.", "A small pneumothorax at the apex."),
}


def write_reports(path: Path, of_each: int = 6) -> Path:
    """A CSV of made-up impressions with their labels, of one class after the other and back."""
    rows = [
        f'"{texts[i % 2]} Series {i}.",{name}'
        for i in range(of_each)
        for name, texts in TOY.items()
    ]
    path.write_text("\n".join(["impression,label", *rows]) + "\n", encoding="utf-8")
    return path


def golden(name: str) -> dict[str, Tensor]:
    """What the reference computed, from `goldens/<name>.npz`."""
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def reference_names(size: str) -> dict:
    """Names and shapes in the reference's files, `size` being tiny or sd_v1_4.

    compvis, diffusers: {name: shape};  compvis_to_diffusers: {name: name};
    open_clip: {its name: [CompVis names, stacked]};  ema_to_live;  config: {part: config.json}
    """
    return json.loads(gzip.decompress((GOLDENS / "keys.json.gz").read_bytes()))[size]


def compvis_state(size: str, salt: str = "") -> dict[str, Tensor]:
    """The pseudo-random weights under CompVis names, with the file's known extras."""
    state = golden("schedule")
    for name, shape in reference_names(size)["compvis"].items():
        state[name] = torch.from_numpy(fill(name, tuple(shape), salt))
    state[POSITION_IDS] = torch.arange(77)[None]
    return state


def write_diffusers(folder: Path, size: str, state: dict[str, Tensor], suffix: str) -> Path:
    """The same weights as a diffusers folder of .safetensors or .bin files."""
    names = reference_names(size)
    for part, config in names["config"].items():
        tensors = {
            theirs.partition("/")[2]: state[ours].reshape(names["diffusers"][theirs]).clone()
            for ours, theirs in names["compvis_to_diffusers"].items()
            if theirs.startswith(f"{part}/")
        }
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
        if suffix == ".safetensors":
            stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
            save_file(tensors, folder / part / f"{stem}.safetensors", metadata={"format": "pt"})
        else:
            stem = "pytorch_model" if part == "text_encoder" else "diffusion_pytorch_model"
            torch.save(tensors, folder / part / f"{stem}.bin")
    return folder


def state_of(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, under its own name."""
    return {name: load() for name, load in read(path).tensors.items()}


def flat(parts: Parts) -> dict[str, Tensor]:
    return {f"{part}.{n}": tensor for part, state in parts.items() for n, tensor in state.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same names, dtypes, shapes and bits."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def relative_l2(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found.double() - expected).norm() / expected.double().norm())


def assert_one_line(error: str, *words: str) -> None:
    """Standard error after a refusal: the program, one line, no traceback, and these words."""
    assert re.match(r"(python -m )?[\w.]+( [\w-]+)*: ", error), error
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error


def adaptation(folder: Path, start: Path, method: str, options: dict, **train) -> Path:
    """A config file in the folder, for few steps and a small model, without previews."""
    common = {"steps": 4, "batch_size": 2, "learning_rate": 1e-2, "warmup": 1, "ema": 0.0}
    common["sample_every"] = 0
    config = {
        "train": {"method": method, "out": str(folder / "run"), **common, **train},
        "data": {"phantoms": 40, "size": 32, "cache": str(start.parent / "cache")},
        "model": {"path": str(start)},
        "method": {"kinds": KINDS, **options},
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def fit(path: Path) -> Path:
    """Train as the config file says; returns the path of the weights."""
    run = load_run(path)
    return Trainer(run, build_method(run)).fit()


def projection(folder: Path, start: Path, encoder: Path, options: dict, **train) -> Path:
    """A config file in the folder that learns to replace the text tower of `start`."""
    closed = {"steps": 1, "learning_rate": 0.0} if options.get("fit", "mlp") != "mlp" else {}
    common = {"steps": 4, "batch_size": 8, "learning_rate": 1e-2, "warmup": 1, "ema": 0.0}
    config = {
        "train": {"method": "projection", "out": str(folder / "run"), **common, **closed, **train},
        "data": {"phantoms": 40, "cache": str(start.parent / "cache")},
        "model": {"path": str(start), "parts": ["text"]},
        "method": {"encoder": str(encoder), "hidden": 32, **options},
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


@pytest.fixture(scope="session")
def tiny_yaml() -> Path:
    return GOLDENS / "tiny.yaml"


@pytest.fixture(scope="session")
def tiny_config(tiny_yaml: Path) -> ModelConfig:
    return load_config(ModelConfig, tiny_yaml)


@pytest.fixture(scope="session")
def tiny_state() -> dict[str, Tensor]:
    return compvis_state("tiny")


@pytest.fixture(scope="session")
def tiny_ckpt(tmp_path_factory: pytest.TempPathFactory, tiny_state: dict[str, Tensor]) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.ckpt"
    torch.save({"state_dict": tiny_state, "global_step": 0}, path)
    return path


@pytest.fixture(scope="session")
def tiny_diffusers(tmp_path_factory: pytest.TempPathFactory, tiny_state: dict[str, Tensor]) -> Path:
    return write_diffusers(
        tmp_path_factory.mktemp("tiny") / "diffusers", "tiny", tiny_state, ".safetensors"
    )


@pytest.fixture(scope="session")
def tiny(tiny_ckpt: Path, tiny_yaml: Path) -> LatentDiffusion:
    """The tiny twin, loaded. Shared by all tests: leave it as it is."""
    return ldm.load(tiny_ckpt, tiny_yaml)


@pytest.fixture(scope="session")
def model(
    tmp_path_factory: pytest.TempPathFactory, tiny_ckpt: Path, tiny_config: ModelConfig
) -> Path:
    """The tiny twin in a file that keeps its config."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    return save(path, *load_parts(tiny_ckpt, tiny_config))


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole small model with random weights."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "sizes.yaml").write_text(yaml.safe_dump({**SIZES, "guidance": 2.0}))
    config = load_config(ModelConfig, folder / "sizes.yaml")
    torch.manual_seed(0)
    parts = {name: build(config).state_dict() for name, build in PARTS.items()}
    return save(folder / "model.safetensors", config, parts)


def write_encoder(folder: Path) -> Path:
    """A BERT with random weights that knows the words of phantoms and single letters."""
    texts = open_texts(DataConfig(phantoms=40)).train
    known = sorted({word for text in texts for word in words(text)} - set(ascii_lowercase))
    vocab = [*SPECIAL, *known, *ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
    sizes = {"width": 16, "layers": 1, "heads": 2, "feedforward": 32}
    torch.manual_seed(0)
    bert = Bert(BertConfig(vocab_size=len(vocab), context_length=100, **sizes))
    save_bert(folder, bert, WordPiece(vocab))
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def full_ckpt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A CompVis file of SD v1.4's names and sizes: 4.3 GB, about a minute; for slow tests only."""
    folder = tmp_path_factory.mktemp("full")
    if shutil.disk_usage(folder).free < 6e9:
        pytest.skip(f"the full-size model needs 6 GB of free disk in {folder}")
    torch.save({"state_dict": compvis_state("sd_v1_4"), "global_step": 0}, folder / "full.ckpt")
    yield folder / "full.ckpt"
    (folder / "full.ckpt").unlink()  # pytest keeps the folders of three runs


@pytest.fixture(scope="session")
def full(full_ckpt: Path) -> LatentDiffusion:
    """The network of that file, in memory as long as the tests run; for slow tests only."""
    return ldm.load(full_ckpt)
