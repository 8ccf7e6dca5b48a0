"""What fuzz.py damages: a folder for each command, with the files it reads and command.json."""

import contextlib
import io
import json
import os
import shlex
import shutil
from pathlib import Path

import fuzz
import numpy as np
import readers
import torch
from conftest import KINDS, SIZES, write_encoder, write_reports
from PIL import Image
from torch import nn

from ldm.config import ModelConfig, from_dict
from ldm.drawing import image_editing
from ldm.judging.judge import Judge, JudgeConfig, save_judge
from ldm.training.trainer import Trainer
from ldm.weights import adapters, conversion, export
from ldm.weights.loading import PARTS

DRAW = "--n 1 --steps 1 --device cpu --out out --prompt"
PAINT = "--prompt lung --steps 1 --outpaint 16,0,16,0 --device cpu --init WHOLE/big.png --out"
SHORT = {"DRAW": DRAW, "PAINT": PAINT, "MODEL": "--model WHOLE/model.safetensors"}
FINDINGS = ("pleural effusion", "lung nodule")
TABLE = "a.png,Effusion,PA,061Y\n"


def write(seeds: Path) -> None:
    """seeds/whole holds what is whole, seeds/<family>/<number> the inputs of a command."""
    whole = seeds / "whole"
    whole.mkdir(parents=True)
    os.chdir(whole)
    write_models()
    write_films()
    write_runs()
    write_drawings()
    rows = json.loads((fuzz.ROOT / "tests/fuzz_commands.json").read_text(encoding="utf-8"))
    films = sorted(Path("dicom").iterdir())
    rows += [("dicom", "*", f"image : {film.name}", str(film)) for film in films]
    rows += [("dicom", "*", "table : .", str(film)) for film in films[::4]]
    for family, pattern, command, *files in rows:
        folder = seeds / family / str(len(list((seeds / family).glob("*"))))
        folder.mkdir(parents=True)
        for name in files:
            there = folder / Path(name).name
            (shutil.copytree if Path(name).is_dir() else shutil.copy)(name, there)
        for short, long in SHORT.items():
            command = command.replace(short, long)
        program, rest = command.replace("WHOLE", str(whole)).split(" : ")
        (folder / "command.json").write_text(json.dumps([pattern, program, *shlex.split(rest)]))


def write_models() -> None:
    torch.manual_seed(0)
    sizes = {**SIZES, "vae": {**SIZES["vae"], "channels": [8, 8, 8], "patch": 1}, "guidance": 2.0}
    Path("sizes.yaml").write_text(json.dumps(sizes))
    config, parts = from_dict(ModelConfig, sizes), {}
    for name, build in PARTS.items():
        parts[name] = build(config)
    model = Path("model.safetensors")
    export.save(model, config, {name: part.state_dict() for name, part in parts.items()})
    for target in ("model.ckpt", "diffusers"):
        conversion.convert(model, target)
    lora = {}
    for name, layer in parts["unet"].named_modules():
        if isinstance(layer, nn.Linear) and "attn" in name:
            lora[f"{name}.down"] = torch.randn(2, layer.in_features)
            lora[f"{name}.up"] = torch.randn(layer.out_features, 2) / 9
    source = Path("lora.safetensors")
    adapters.save(source, "lora", lora, {"alpha": 2, "rank": 2})
    conversion.convert_lora(source, "kohya.safetensors", "kohya", config)
    conversion.convert_lora(source, "theirs.safetensors", "diffusers", config)
    conversion.convert_lora(source, "peft", "peft", config)
    vectors = torch.randn(2, 16)
    adapters.save(Path("word.safetensors"), "word", {"vectors": vectors}, {"word": "<x>"})
    conversion.convert_word("word.safetensors", "a1111.safetensors", "a1111")
    torch.save({"string_to_param": {"*": vectors}, "name": "x"}, "old.pt")
    Path("bert").mkdir()
    write_encoder(Path("bert"))
    save_judge(Path("judge.safetensors"), Judge(JudgeConfig(FINDINGS, 32, 8, 8, (1, 1))))


def write_films() -> None:
    g = np.random.default_rng(0)
    for folder in ("films", "dicom"):
        Path(folder).mkdir()
    for i in range(4):
        pixels = Image.fromarray(g.integers(0, 256, (8, 8), np.uint8)).resize((64, 64))
        pixels.resize((32, 32)).save(f"films/{i}.png")
    for form in ("png", "jpg", "webp", "tiff", "bmp", "jp2", "gif", "pgm"):
        pixels.save(f"big.{form}")
    shutil.copy("films/0.png", "a.png")
    rows = "".join(f"{i}.png,{('Effusion', '')[i % 2]}\n" for i in range(4))
    Path("films/t.csv").write_text(f"filename,labels\n{rows}")
    Path("t.csv").write_text("filename,labels,view,age\n" + 6 * TABLE)
    row = {"filename": "a.png", "labels": "Effusion", "view": "PA", "caption": "a lung"}
    Path("t.jsonl").write_text("\n".join([json.dumps(row)] * 6))
    Path("p.txt").write_text("lung xray (with:1.2) effusion\n")
    write_reports(Path("reports.csv"))
    with contextlib.redirect_stdout(io.StringIO()) as text:
        fuzz.read_image(["big.png"])
    Path("big.txt").write_text(text.getvalue())
    with contextlib.suppress(ImportError):
        from test_dicom_files import SHIPPED

        for i, path in enumerate(path for path in SHIPPED if path.stat().st_size < 60_000):
            shutil.copy(path, f"dicom/{i:03}.dcm")
    made = readers.make(Path("made").resolve(), 4, 1, 1)
    shutil.copy(made / "key.json", "key.json")
    readers.answer_all(readers.key_of(made), "A", lambda trial: ("fake", 3), Path("answers.json"))
    shutil.copy(fuzz.ROOT / "docs/spot_the_fake_lungs.json", "counts.json")


FRESH, BEGUN = {"config": "../sizes.yaml"}, {"path": "../model.safetensors"}
NETWORK = {"findings": FINDINGS, "size": 32, "channels": 8, "growth": 8, "blocks": [1, 1]}
TINY = {"width": 16, "layers": 1, "heads": 2, "feedforward": 32, "vocab_size": 300}
METHODS = {
    "vae": (FRESH, {"crop": 32}),
    "text": (FRESH | BEGUN, {"pixels": 16, "channels": 8}),
    "unet": (BEGUN, {"variants": 1}),
    "judge": ({}, {"network": NETWORK}),
    "bert": ({}, {"network": TINY}),
    "textual_inversion": (BEGUN, {"kinds": KINDS}),
    "finetune": (BEGUN, {"kinds": KINDS}),
    "projection": (BEGUN | {"parts": ["text"]}, {"encoder": "bert", "hidden": 8}),
}


def write_runs() -> None:
    """A run of each method, a cache that all use, and one run half done and ended."""
    train, save = fuzz.main_of("train.py"), Trainer._save_checkpoint
    whole = str(Path().resolve())
    few = {"steps": 1, "batch_size": 2, "learning_rate": 1e-3, "warmup": 1, "ema": 0.0}
    few |= {"sample_every": 0, "save_every": 1, "out": "run"}
    data = {"phantoms": 8, "size": 32, "cache": "cache"}
    for method, (start, options) in METHODS.items():
        run = {"train": {"method": method, **few}, "data": data, "model": start, "method": options}
        place = Path("runs", method)
        place.mkdir(parents=True)
        text = json.dumps(run).replace("..", whole)
        (place / "run.yaml").write_text(text)
        if train([str(place / "run.yaml")]):
            raise SystemExit(f"{method} cannot be trained")
        shutil.move("run", place / "trained")
    shutil.copy("runs/projection/trained/model.safetensors", "projection.safetensors")
    run["train"] |= {"method": "finetune", "steps": 4}
    run |= {"method": METHODS["finetune"][1], "model": METHODS["finetune"][0]}
    Path("run.yaml").write_text(json.dumps(run).replace("..", whole))
    train(["run.yaml"])
    shutil.copytree("run", "finished")
    Path("ended").mkdir()
    shutil.move("run", "ended/run")

    def stop(trainer: Trainer, step: int) -> None:
        save(trainer, step)
        if step == 2:
            raise KeyboardInterrupt

    Trainer._save_checkpoint = stop
    train(["run.yaml"])
    for folder in ("run", "ended/run"):  # somebody else's, below the run folder
        Path(folder, "sub").mkdir()
        Path(folder, "sub", ".other.4194304.partial").touch()


def write_drawings() -> None:
    """A picture, an outpainted one, and one that was stopped after two windows."""
    draw, whole = fuzz.main_of("sample.py"), str(Path().resolve())
    given = ["--model", "model.safetensors"]
    draw([*given, *DRAW.split(), "lung"])
    shutil.move("out/00000.png", "drawn.png")
    shutil.rmtree("out")
    paint = [*given, *PAINT.replace("WHOLE", whole).split()]
    draw([*paint, "painted"])
    inpaint, windows = image_editing.inpaint, iter((1, 2))

    def stop(*arguments: object) -> object:
        if next(windows, None) is None:
            raise KeyboardInterrupt
        return inpaint(*arguments)

    image_editing.inpaint = stop
    draw([*paint, "stopped/out"])
