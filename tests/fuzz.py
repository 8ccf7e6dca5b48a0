"""Hostile and clumsy inputs of every kind: each is read or refused in one line, and nothing else.

    python -m tests.fuzz [--count 10000] [--seconds 60] [--family NAME] [--seed 0] [--out runs/fuzz]

Case i of a family and a seed is always the same. Cases run in forks of this process, which has
imported everything, one in a hundred as a command of its own. A case at fault is kept in
OUT/kept/<case>: what it read, what was printed, and `sh command.sh`, which runs it again.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib
import io
import json
import logging
import os
import pkgutil
import random
import re
import resource
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SECONDS, BYTES, CHARACTERS = 20, 2 * 10**9, 300  # what no case may take, or a line be longer than
MODULES = {  # {program: the module whose main it is}
    **{"sample.py": "sample", "train.py": "train", "evaluate.py": "evaluate"},
    **{"python -m ldm.weights": "ldm.weights.conversion"},
}
FAULTS = ("traceback", "hang", "memory", "control", "line", "leftover", "outside", "silent")


class Result(NamedTuple):
    status: int  # as of a shell; minus the signal's number where one ended it
    out: str
    err: str
    bytes: int


class Case(NamedTuple):
    """fine: of a case that ends with 0: is what came out what must come out?"""

    program: str
    arguments: list[str]
    fine: Callable[[Result], bool] = lambda result: True


def unless(bad: object) -> Callable[[Result], bool]:
    """What is bad must be refused."""
    return lambda result: not bad


# --- what is damaged, and how ---

PIECES = ["", " ", "\x1b[31m", "\x1b]0;x\x07", "\u202e", "\0", "\r", "\n", "x" * 5000, "{}", "%s"]
PIECES += ["../a.png", "é" * 90, "𝒳", "'", '"', "\ufeff", "-1", "NaN", "1e999", "\t", "\\", "<b>"]
VALUES = [0, -1, 1, 2, 3, 2**31, 2**63, 10**30, 1e300, float("nan"), float("inf"), 0.5, True, None]
VALUES += [[], {}, [0], [[1]], {"a": 1}, "@deep", "@wide", *PIECES]
DRAW = ["--prompt", "lung xray", "--n", "1", "--steps", "1", "--device", "cpu", "--out", "out"]


def damage(draw: random.Random, content: bytes) -> bytes:
    """Bytes changed, cut out, repeated or put in, most of them near the start; perhaps cut."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 4, 16))):
        at, how = int(len(data) * draw.random() ** draw.choice((1, 4))), draw.randrange(8)
        if how == 5:
            del data[at : at + draw.randrange(1, 40)]
        elif how == 6:
            data[at:at] = data[at : at + 20]
        elif how == 7:
            data[at:at] = draw.choice(PIECES).encode()
        else:
            data[at : at + 1] = bytes([draw.randrange(256)])
    return bytes(data[: draw.randrange(len(data) + 1)] if draw.random() < 0.2 else data)


def change(draw: random.Random, tree: Any, spared: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """Replace, drop or double a value anywhere in dicts and lists; its key and what it is now."""
    places: list[tuple[Any, Any]] = []

    def walk(holder: Any) -> None:
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            places.extend([(holder, key)] * (key not in spared))
            if isinstance(value, dict | list):
                walk(value)

    walk(tree)
    holder, key = draw.choice(places)
    value, how = draw.choice(VALUES), draw.random()
    if how < 0.1:
        del holder[key]
    elif how < 0.2 and isinstance(holder, list):
        holder += [holder[key]] * draw.choice((1, 1000))
    elif how < 0.2:
        holder[draw.choice(PIECES)] = value
    else:
        holder[key] = value
        return key, value
    return key, None


def text_of(tree: Any, yaml: bool = False) -> str:
    """JSON, which YAML is a superset of, but for NaN; its marks become what json cannot write."""
    text = json.dumps(tree, ensure_ascii=False)
    if yaml:
        text = text.replace("NaN", ".nan").replace("Infinity", ".inf")
    wide = "[" + "9," * 99_999 + "9]"
    return text.replace('"@deep"', "[" * 99_999 + "]" * 99_999).replace('"@wide"', wide)


def write_text(draw: random.Random, path: Path, text: str, odds: float = 0.2) -> None:
    content = text.encode("utf-8", "surrogateescape")
    path.write_bytes(damage(draw, content) if draw.random() < odds else content)


def retensor(draw: random.Random, file: Path) -> bool:
    """Change a tensor, or the table of tensors, of a file; returns whether it holds a NaN now."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    pickled, said = file.suffix != ".safetensors", {}
    if pickled:
        whole = torch.load(file, weights_only=True)
        state = whole.get("state_dict", whole)
    else:
        with safe_open(file, "pt") as handle:
            said = handle.metadata() or {}
            state = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    spared = r"(^|\.)encoder\.(conv|down|mid|norm)|quant_conv|embedding|position|betas|alphas"
    names = [n for n, t in state.items() if hasattr(t, "ndim") and t.is_floating_point()]
    name = draw.choice([n for n in names if not re.search(spared, n)] or [*state, ""])
    if name not in names:
        return False
    tensor, how = state[name].clone(), draw.randrange(9)
    if how < 3:
        tensor.reshape(-1)[draw.randrange(tensor.numel())] = draw.choice((float("nan"), torch.inf))
    elif how == 3:
        tensor = tensor.to(draw.choice((torch.int64, torch.bool, torch.float16, torch.float64)))
    elif how == 4:
        tensor = draw.choice((tensor[:0], tensor.reshape(-1), tensor.reshape(-1)[0], tensor[None]))
    elif how == 5:
        state[draw.choice(PIECES)] = tensor.clone()
    elif how == 6:
        state[name + draw.choice(PIECES)] = state.pop(name).clone()
    state[name] = tensor.contiguous()
    if how == 7:
        del state[name]
    if not pickled:
        save_file(state, file, said)
    elif how == 8:
        torch.save(draw.choice([[], {}, state[name], {"state_dict": 3}, {"state_dict": {}}]), file)
    else:
        torch.save(whole, file)
    return how < 3


def reheader(draw: random.Random, file: Path, kind: str | None = None) -> tuple[Any, Any]:
    """Change the header of a safetensors file, or in it the JSON of its metadata `kind`."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    said = json.loads(header["__metadata__"][kind]) if kind else header
    changed = change(draw, said)
    if kind:
        header["__metadata__"][kind] = text_of(said)
    text = text_of(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return changed


def elsewhere(draw: random.Random, path: Path, seeds: Path) -> None:
    """Put something at the path that is no file of its kind at all."""
    content = draw.choice((b"", b"<!DOCTYPE html>", b"version https://git-lfs", b"\0" * 999, b"PK"))
    kind = draw.randrange(7)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.symlink_to(draw.choice(("/dev/zero", "/dev/null", "/dev/full", "/proc/self/mem")))
    elif kind == 4:
        other = draw.choice([p for p in sorted(seeds.rglob("*")) if p.is_file()])
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(content)


def usable(value: Any, above: float = -float("inf")) -> bool:
    try:
        return not isinstance(value, bool) and above < float(value) < 1e6
    except (TypeError, ValueError, OverflowError):
        return True  # the type is refused, or nothing was changed


# --- the families: each writes what it reads into the working folder, and says its command ---


def weights(draw: random.Random, seeds: Path) -> Case:
    """Files and folders of models: cut, changed, of other shapes, with numbers that are none."""
    name = draw.choice(("model.safetensors", "model.ckpt", "diffusers"))
    file = Path(name)
    if name == "diffusers":
        shutil.copytree(seeds / name, name)
        file = draw.choice(sorted(Path(name).rglob("*.safetensors")))
    content, how, must_fail = (seeds / file).read_bytes(), draw.randrange(6), False
    file.write_bytes(content)
    if how == 0:
        must_fail = bool(file.write_bytes(content[: draw.randrange(len(content))]) + 1)
    elif how == 1:
        file.write_bytes(damage(draw, content))
    elif how == 2 and file.suffix == ".safetensors":
        reheader(draw, file)
    elif how == 3:
        file.unlink()
        elsewhere(draw, file, seeds)
    elif how > 3:
        must_fail = retensor(draw, file)
    way = draw.random()
    if way < 0.6:
        return Case("sample.py", ["--model", name, *DRAW], unless(must_fail))
    if way < 0.8:
        target = draw.choice(("out.safetensors", "out.ckpt", "folder"))
        arguments = ["convert", name, target]
        return Case("python -m ldm.weights", arguments)
    part = draw.choice(("unet", "vae", "text"))
    return Case("sample.py", ["--model", str(seeds / "model.safetensors"), f"--{part}", name, *DRAW])


def configs(draw: random.Random, seeds: Path) -> Case:
    """The sizes of models: in our files, as YAML, in a diffusers folder."""
    way = draw.randrange(3)
    arguments = ["--model", "model.safetensors"]
    if way == 0:
        shutil.copy(seeds / "model.safetensors", ".")
        changed = reheader(draw, Path("model.safetensors"), "config")
    elif way == 1:
        sizes = json.loads((seeds / "sizes.json").read_text())
        changed = change(draw, sizes)
        write_text(draw, Path("sizes.yaml"), text_of(sizes, yaml=True))
        arguments = ["--model", str(seeds / "model.ckpt"), "--config", "sizes.yaml"]
    else:
        shutil.copytree(seeds / "diffusers", "diffusers")
        file = draw.choice(sorted(Path("diffusers").rglob("*config.json")))
        values = json.loads(file.read_text())
        changed = change(draw, values)
        write_text(draw, file, text_of(values))
        arguments = ["--model", "diffusers"]
    factor, wrong = ("scale_factor", "scaling_factor"), ("guidance", "beta_start", "beta_end")
    key, value = changed
    bad = (key in factor and not usable(value, 0)) or (key in wrong and not usable(value))
    return Case("sample.py", [*arguments, *DRAW], unless(bad))


def adapters(draw: random.Random, seeds: Path) -> Case:
    """LoRAs, new words, projections and their BERT, judges; ours and other programs'."""
    name = draw.choice(sorted(p.name for p in (seeds / "small").iterdir()))
    file = Path(name)
    model = ["--model", str(seeds / "model.safetensors")]
    if (seeds / "small" / name).is_dir():
        shutil.copytree(seeds / "small" / name, name)
        file = draw.choice([p for p in sorted(Path(name).rglob("*")) if p.is_file()])
    content, how, must_fail = (seeds / "small" / file).read_bytes(), draw.randrange(6), False
    file.write_bytes(content)
    kind = name.partition(".")[0].partition("_")[0]
    if how == 0:
        file.write_bytes(content[: draw.randrange(len(content))])
        must_fail = file.suffix in (".safetensors", ".pt")
    elif how == 1:
        file.unlink()
        elsewhere(draw, file, seeds)
    elif file.suffix == ".safetensors" and how < 4:
        ours = "_" not in name and kind not in ("bert", "peft")
        reheader(draw, file, kind if ours and draw.random() < 0.7 else None)
    elif file.suffix == ".json" and how < 5:
        tree = json.loads(content)
        change(draw, tree)
        file.write_text(text_of(tree))
    elif file.suffix == ".safetensors":
        must_fail = retensor(draw, file) and kind in ("lora", "peft", "projection", "bert")
    else:
        file.write_bytes(damage(draw, content))
    if kind == "judge":
        Path("weights").mkdir()
        file.rename("weights/judge.safetensors")
        films = str(seeds / "films")
        return Case("evaluate.py", ["images", films, films, "--weights", "weights", "--out", "out"])
    for other in ("bert", "projection.safetensors") if kind in ("bert", "projection") else ():
        if not Path(other).exists():  # they name each other
            place = seeds / "small" / other
            (shutil.copytree if place.is_dir() else shutil.copy)(place, other)
    if kind == "bert":
        name, kind = "projection.safetensors", "projection"
    option = {"word": "--embedding", "projection": "--text-encoder"}.get(kind, "--lora")
    if kind == "lora" and draw.random() < 0.2:
        way = draw.choice(("kohya", "diffusers", "peft"))
        sizes = str(seeds / "sizes.json")
        return Case("python -m ldm.weights", ["lora", name, "new", "--to", way, "--config", sizes])
    return Case("sample.py", [*model, option, name, *DRAW], unless(must_fail))


def train(case_folder: str = "run.yaml", fine: Callable[[Result], bool] | None = None) -> Case:
    return Case("train.py", [case_folder], fine or (lambda result: finite(Path("run"))))


def finite(run: Path) -> bool:
    """Are all numbers of a training's result numbers?"""
    from safetensors.torch import load_file

    return all(t.isfinite().all() for t in load_file(run / "model.safetensors").values())


def as_undisturbed(seeds: Path) -> Callable[[Result], bool]:
    weights = (seeds / "finished" / "model.safetensors").read_bytes()
    return lambda result: Path("run/model.safetensors").read_bytes() == weights


def runs(draw: random.Random, seeds: Path) -> Case:
    """Run folders, half done or finished, with a damaged file: the same bits, or a refusal."""
    import torch

    shutil.copytree(seeds / draw.choice(("stopped", "stopped", "finished")), "run")
    shutil.copytree(seeds / "cache", "cache")
    shutil.copy(seeds / "run.yaml", ".")
    file = draw.choice(sorted(p for p in Path("run").iterdir() if p.suffix != ".png"))
    content, how = file.read_bytes(), draw.randrange(4)
    if how == 0:
        file.write_bytes(content[: draw.randrange(len(content))])
    elif how == 1:
        data = bytearray(content)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
    elif file.suffix == ".pt":
        state = torch.load(file, weights_only=True)
        if draw.random() < 0.2:
            state = draw.choice([[], {}, 3, "x", state["module"], state["config"]])
        else:
            change(draw, state)
        torch.save(state, file)
    elif file.suffix == ".jsonl":
        rows = [json.loads(line) for line in content.decode().splitlines()]
        change(draw, rows)
        write_text(draw, file, "\n".join(map(text_of, rows)))
    elif how == 2:
        file.unlink()
        elsewhere(draw, file, seeds)
    else:
        file.write_bytes(damage(draw, content))
    return train(fine=as_undisturbed(seeds))


def caches(draw: random.Random, seeds: Path) -> Case:
    """A training whose cached images or latents are damaged: the same bits, or a refusal."""
    shutil.copytree(seeds / "cache", "cache")
    shutil.copy(seeds / "run.yaml", ".")
    file = draw.choice(sorted(p for p in Path("cache").rglob("*") if p.is_file()))
    content, how = file.read_bytes(), draw.randrange(4)
    if how == 0:
        file.write_bytes(content[: draw.randrange(len(content))])
    elif how == 1:
        file.write_bytes(damage(draw, content))
    elif how == 2:
        file.unlink()
        elsewhere(draw, file, seeds)
    else:
        data = bytearray(content)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
    return train(fine=as_undisturbed(seeds))


YAML = ["&a [1,1]", "*a", "!!python/object:os.system", "2001-01-01", "? ", "- ", ": ", "{", "\t", "|"]
LAUGHS = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9) if i else 1}]\n" for i in range(12))


def trainings(draw: random.Random, seeds: Path) -> Case:
    """YAML files and overrides of trainings of every method."""
    bases = json.loads((seeds / "trainings.json").read_text())
    run = draw.choice(bases)
    shutil.copytree(seeds / "cache", "cache")
    key, value = change(draw, run, spared=("out",)) if draw.random() < 0.8 else ("", None)
    if isinstance(value, int) and key in ("steps", "accumulate") and value > 3:
        run["train"][key] = 3  # whoever asks for a long training gets one
    text = text_of(run, yaml=True)
    if draw.random() < 0.2:
        text = draw.choice((text + "\n" + draw.choice(YAML), LAUGHS + "train: *x11\n", text[1:-1]))
    write_text(draw, Path("run.yaml"), text)
    case, odd = train(), [draw.choice(("train.seed", "data.size", "method.x", "", "a.b.c", "train"))]
    odd += [draw.choice(("=", "", "==")), draw.choice([*PIECES, *YAML, "5", "1e-3"])]
    return case._replace(arguments=[*case.arguments, *(["".join(odd)] * (draw.random() < 0.2))])


@cache
def options_of(program: str, *words: str) -> list[str]:
    """The options that --help names, but for those that take minutes."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main_of(program)([*words, "--help"])
    slow = {"--compile", "--winograd", "--no-winograd", "--out", "--help"}
    return sorted(set(re.findall(r"--[a-z][a-z-]+", text.getvalue())) - slow)


def commands(draw: random.Random, seeds: Path) -> Case:
    """Command lines: options with numbers, empty words, words of any alphabet, names of files."""
    model, films = str(seeds / "model.safetensors"), str(seeds / "films")
    big, reports = str(seeds / "big.png"), str(seeds / "reports.csv")
    bases = [
        ("sample.py", [], ["--model", model, *DRAW]),
        ("sample.py", [], ["--model", model, *DRAW, "--init", big]),
        ("python -m ldm.weights", ["convert"], [model, "out.ckpt"]),
        ("python -m ldm.weights", ["lora"], [str(seeds / "small/lora.safetensors"), "new"]),
        ("evaluate.py", ["classify"], [films, "--weights", str(seeds / "weights")]),
        ("evaluate.py", ["images"], [films, films, "--weights", str(seeds / "weights")]),
        ("evaluate.py", ["memorization"], [films, "--weights", str(seeds / "weights")]),
        ("evaluate.py", ["reconstruction"], [films, "--model", model, "--survival", "0"]),
        ("evaluate.py", ["edits"], [films, "--model", model, "--n", "2", "--steps", "1"]),
        ("evaluate.py", ["text-encoders"], ["--reports", reports, "--encoders", "words"]),
        ("evaluate.py", ["reader-study", "plan"], []),
        ("evaluate.py", ["reader-study", "make"], [films, films, "--n", "2", "--catch", "0"]),
    ]
    program, words, arguments = draw.choice(bases)
    arguments = [*words, *arguments, *(["--out", "out"] * (program == "evaluate.py"))]
    values = ["0", "1", "2", "-1", "1000000000", "1" * 20, "nan", "inf", "1e300", "0.5", "٣", "1_0"]
    values += ["0x10", "1,2", "1,2,3,4", "64x64", "99999x99999", "a" * 300, "absent", "ddim", "CT"]
    values += [model, films, big, reports, "phantoms:2", "phantoms:1000000000000", "/dev/zero", "."]
    values += [piece for piece in PIECES if "\0" not in piece]
    for _ in range(draw.choice((1, 1, 2, 3))):
        more = [draw.choice(options_of(program, *words))] * (draw.random() < 0.9)
        more += [draw.choice(values)] * (draw.random() < 0.9)
        arguments[len(words) : len(words)] = more
    empty = draw.random() < 0.03 and program == "sample.py"
    arguments += ["--out", draw.choice(("", " "))] * empty
    return Case(program, arguments, unless(empty))


def prompts(draw: random.Random, seeds: Path) -> Case:
    """Files of prompts, and prompts with the marks that weigh words."""
    marks = [*PIECES, "(", ")" * 3, "[" * 2000, "(" * 2000, "(lung:1.2)", "(a:1e999)", "BREAK", ":"]
    marks += ["a AND b", "<x>", "\\(", "(:)", "[a:b:0.5]", "(a:-1)", "(((a:nan)))"]
    lines = [" ".join(draw.choices(["lung", "xray", *marks], k=draw.randint(1, 6)))]
    text = draw.choice(("\n", "\r\n", "\x85")).join(lines * draw.choice((1, 1, 2)))
    write_text(draw, Path("prompts.txt"), text)
    if draw.random() < 0.1:
        Path("prompts.txt").unlink()
        elsewhere(draw, Path("prompts.txt"), seeds)
    given = ["--prompts", "prompts.txt", *DRAW[2:], "--model", str(seeds / "model.safetensors")]
    given += draw.choice(([], ["--prompt-syntax", "a1111"], ["--prompt-syntax", "comfyui"]))
    return Case("sample.py", [*given, *draw.choice(([], ["--long-prompts", "chunks"]))])


COLUMNS = ["labels", "view", "sex", "age", "caption", "split", "uncertain", "class", "path"]
COLUMNS += ["report_file", "quality_flag", "patient_id", "reader", "notes"]
CELLS = ["", "a.png", "no.png", "NaN", "999", "PA", "train", "Effusion", "a; b", "061Y", "val"]


def tables(draw: random.Random, seeds: Path) -> Case:
    """Tables of films: no row is lost, no file outside is read."""
    shutil.copy(seeds / "films" / "0.png", "a.png")
    columns = ["filename", *draw.sample(COLUMNS, 3)]
    cells = [["a.png", *draw.choices(CELLS, k=3)] for _ in range(6)]
    bad = draw.randrange(12)
    if bad == 0:
        columns[draw.randint(1, 3)] = "filename"  # twice
    elif bad == 1:
        cells[draw.randrange(6)][0] = draw.choice(("../films/1.png", str(seeds / "films/1.png")))
    text, marks = "\n".join(map(",".join, [columns, *cells])), [*CELLS, *PIECES, *"|;,\t[]\n\\/{}="]
    for _ in range(draw.randint(0, 3) if bad > 2 else bad == 2):
        place = draw.randrange(len(text))
        piece = '"' if bad == 2 else draw.choice(marks)
        text = text[:place] + piece + text[place + draw.randint(0, 3) * (bad > 2) :]
    name = draw.choice(("t.csv", "t.csv", "t.tsv", "t.jsonl")) if bad > 2 else "t.csv"
    content = text.encode(draw.choice(("utf-8", "utf-16", "utf-8-sig")) if bad > 2 else "utf-8")
    if name == "t.jsonl":
        rows = [dict(zip(columns, row, strict=True)) for row in cells]
        change(draw, rows)
        content = "\n".join(map(text_of, rows)).encode()
    Path(name).write_bytes(damage(draw, content) if bad > 8 else content)

    def fine(result: Result) -> bool:
        read, skipped = map(int, result.out.split()[:2])
        named = bad == 1 and read == 6
        return bad > 2 or (bad > 0 and not named and read + skipped == 6)

    return Case("table", [name], fine)


FORMS = {"png": "png", "jpg": "jpeg", "webp": "webp", "tiff": "tiff", "bmp": "bmp"}
FORMS |= {"jp2": "jpeg2000", "gif": "gif", "pgm": "ppm"}


def images(draw: random.Random, seeds: Path) -> Case:
    """Pictures: a PNG has checksums, so that a damaged one has the same levels or is refused."""
    from PIL import Image

    form, content = draw.choice([*FORMS, "png"]), io.BytesIO()
    with Image.open(seeds / "big.png") as image:
        image.save(content, FORMS[form])
    path = Path(f"x.{form}")
    path.write_bytes(damage(draw, content.getvalue()))
    if draw.random() < 0.05:
        path.unlink()
        elsewhere(draw, path, seeds)
    if draw.random() < 0.2:
        command = ["--init", path.name, "--model", str(seeds / "model.safetensors"), *DRAW]
        return Case("sample.py", command)
    whole = (seeds / "big.txt").read_text()
    return Case("image", [path.name], lambda result: form != "png" or result.out == whole)


def recalled(draw: random.Random, seeds: Path) -> Case:
    """PNGs to be drawn again whose text was changed."""
    from PIL import Image, PngImagePlugin

    with Image.open(seeds / "drawn.png") as image:
        image.load()
        said = {key: text for key, text in image.info.items() if isinstance(text, str)}
        info = PngImagePlugin.PngInfo()
        if draw.random() < 0.3:
            said["batch"] = draw.choice(("0-100000", "0-999999999", "0-1", "-1-5", "5", "x", "1-0"))
            said["index"] = draw.choice((said["index"], "3", "0-5", "99999999999", "-1"))
        elif draw.random() < 0.3:
            edit = {"way": "inversion", "init": "x", "strength": 0.5, "canvas": [9, 9], "at": [0, 0]}
            change(draw, edit)
            said["edit"] = text_of(edit)
        else:
            said, kept = {str(k): v for k, v in said.items()}, dict(said)
            key, value = change(draw, said)
            said = {**kept, **{str(k): str(v) for k, v in said.items() if kept.get(k) != v}}
        for key, value in said.items():
            with contextlib.suppress(ValueError, UnicodeError):
                info.add_itxt((key or "x")[:79], value)
        image.save("x.png", pnginfo=info)
    if draw.random() < 0.1:
        Path("x.png").write_bytes(damage(draw, Path("x.png").read_bytes()))
    few = ["--out", "out", "--model", str(seeds / "model.safetensors"), "--device", "cpu"]
    return Case("sample.py", ["--from", "x.png", *few])


def dicom(draw: random.Random, seeds: Path) -> Case:
    """DICOM of many kinds with bytes changed or cut off."""
    data = bytearray(draw.choice(sorted((seeds / "dicom").iterdir())).read_bytes())
    for _ in range(draw.choice((1, 8, 64))):
        data[draw.randrange(132, len(data))] = draw.randrange(256)
    Path("x.dcm").write_bytes(data[: draw.choice((len(data), draw.randrange(132, len(data))))])
    return Case(*draw.choice((("image", ["x.dcm"]), ("table", ["."]))))


def readers(draw: random.Random, seeds: Path) -> Case:
    """Keys, answers and counts of reader studies: a changed key is refused."""
    names = ["key.json", "answers.json", "counts.json"]
    trees = {name: json.loads((seeds / "study" / name).read_text()) for name in names}
    name, bad = draw.choice(names), draw.randrange(8)
    trials = trees["key.json"]["trials"]
    if bad == 0:
        draw.choice(trials)["truth"] = draw.choice(("Synthetic", "REAL", "", "fake", 1, None))
    elif bad == 1:
        trials[0]["repeats"] = draw.choice((trials[0]["id"], "absent", 3))
    elif bad == 2:
        trials.append(dict(draw.choice(trials)))
    else:
        change(draw, trees[name])
    for each, tree in trees.items():
        write_text(draw, Path(each), text_of(tree), 0.3 * (each == name and bad > 2))
    way = ["--counts", "counts.json"] if name == "counts.json" and bad > 2 else names[:2]
    return Case("evaluate.py", ["reader-study", "score", *way, "--out", "out"], unless(bad < 3))


OUTPAINT = ["--prompt", "lung", "--steps", "1", "--outpaint", "16,0,16,0", "--device", "cpu"]


def outpainting(draw: random.Random, seeds: Path) -> Case:
    """A stopped outpainting whose state or preview is damaged: the same picture, or a refusal."""
    import numpy as np

    shutil.copytree(seeds / "stopped_painting", "out")
    file = draw.choice([p for p in sorted(Path("out").iterdir())])
    content, how = file.read_bytes(), draw.randrange(5)
    if how == 0:
        file.write_bytes(content[: draw.randrange(len(content))])
    elif how < 3 or file.suffix != ".npz":
        file.write_bytes(damage(draw, content))
    elif how == 3:
        file.unlink()
        elsewhere(draw, file, seeds)
    else:
        with np.load(file) as stored:
            state: dict[str, Any] = dict(stored)
        name = draw.choice(("canvas", "done", "key"))
        odd = [np.float64("nan"), np.int64(-1), np.int64(99), np.zeros(3), np.str_("x")]
        state[name] = draw.choice([*odd, state["canvas"][:9], state["canvas"].astype(np.float32)])
        np.savez(file, **state)
    whole = (seeds / "painting" / "00000.png").read_bytes()
    given = ["--init", str(seeds / "big.png"), "--model", str(seeds / "model.safetensors")]

    def fine(result: Result) -> bool:
        return Path("out/00000.png").read_bytes() == whole

    return Case("sample.py", [*given, *OUTPAINT, "--out", "out"], fine)


NAMES = ["\x1b[31mred", "\x1b]0;title\x07", "a\nb", "a\rb", "\u202eabc", os.fsdecode(b"\xff\xfe"), "-n"]
NAMES += ["a b", "%s{}", "*", "é" * 60, "x" * 250, "<script>", "$(id)", "a,b=c", "~", "\x9b31m", "a:1"]


def names(draw: random.Random, seeds: Path) -> Case:
    """Names of files and folders with escapes, marks and bytes that are no text."""
    name, there = draw.choice(NAMES), draw.random() < 0.6
    model, films = str(seeds / "model.safetensors"), str(seeds / "films")
    way = draw.randrange(9)
    whole = [model, model, films, str(seeds / "big.png"), str(seeds / "small/lora.safetensors"), ""]
    source = [*whole, str(seeds / "run.yaml"), str(seeds / "small/word.safetensors"), films][way]
    if there and source:
        (shutil.copytree if Path(source).is_dir() else shutil.copy)(source, name)
        if way in (2, 8):
            next(Path(name).iterdir()).rename(Path(name) / draw.choice(NAMES))
    base = ["--model", model, *DRAW]
    files = [
        ("sample.py", [f"--model={name}", *DRAW]),
        ("python -m ldm.weights", ["convert", "--", name, f"{draw.choice(NAMES)}.ckpt"]),
        ("evaluate.py", ["images", films, "--weights", str(seeds / "weights"), "--", name]),
        ("sample.py", [*base, f"--init={name}"]),
        ("sample.py", [*base, f"--lora={name}"]),
        ("sample.py", [*base, f"--out={name}"]),
        ("train.py", ["--", name, f"train.out={draw.choice(NAMES)}"]),
        ("sample.py", [*base, f"--embedding={name}"]),
        ("table", [name]),
    ]
    return Case(*files[way])


FAMILIES = {
    each.__name__: each
    for each in (
        *(weights, configs, adapters, runs, caches, trainings, commands, prompts, tables),
        *(images, recalled, dicom, readers, outpainting, names),
    )
}


# --- what is whole, made once ---


def plant(seeds: Path) -> None:
    """The inputs that cases damage: small models, trainings, films, studies, half done work."""
    import numpy as np
    import torch
    from conftest import KINDS, SIZES, write_encoder, write_reports
    from PIL import Image
    from readers import answer_all, key_of, make
    from torch import nn

    from ldm.config import ModelConfig, from_dict
    from ldm.drawing import image_editing
    from ldm.judging.judge import Judge, JudgeConfig, save_judge
    from ldm.training.trainer import Trainer
    from ldm.weights import adapters, conversion, export
    from ldm.weights.loading import PARTS

    torch.manual_seed(0)
    for name in ("small", "weights", "films", "dicom"):
        (seeds / name).mkdir(parents=True)
    sizes = {**SIZES, "vae": {**SIZES["vae"], "channels": [8, 8, 8], "patch": 1}, "guidance": 2.0}
    (seeds / "sizes.json").write_text(json.dumps(sizes))
    config, model = from_dict(ModelConfig, sizes), seeds / "model.safetensors"
    parts = {name: build(config) for name, build in PARTS.items()}
    export.save(model, config, {name: part.state_dict() for name, part in parts.items()})
    for target in ("model.ckpt", "diffusers"):
        conversion.convert(model, seeds / target)
    g = np.random.default_rng(0)
    for i in range(4):
        pixels = Image.fromarray(g.integers(0, 256, (8, 8), np.uint8)).resize((64, 64))
        pixels.resize((32, 32)).save(seeds / "films" / f"{i}.png")
        pixels.save(seeds / "big.png")
    (seeds / "films" / "t.csv").write_text(
        "filename,labels\n" + "".join(f"{i}.png,{('Effusion', '')[i % 2]}\n" for i in range(4))
    )
    write_reports(seeds / "reports.csv")
    small = seeds / "small"
    lora = {}
    for name, layer in parts["unet"].named_modules():
        if isinstance(layer, nn.Linear) and "attention" in name:
            lora[f"{name}.down"] = torch.randn(2, layer.in_features)
            lora[f"{name}.up"] = torch.randn(layer.out_features, 2) / 9
    adapters.save(small / "lora.safetensors", "lora", lora, {"alpha": 2, "rank": 2})
    for way in ("kohya", "diffusers", "peft"):
        target = small / ("peft" if way == "peft" else f"lora_{way}.safetensors")
        conversion.convert_lora(small / "lora.safetensors", target, way, config)
    vectors = torch.randn(2, 16)
    adapters.save(small / "word.safetensors", "word", {"vectors": vectors}, {"word": "<x>"})
    conversion.convert_word(small / "word.safetensors", small / "word_a1111.safetensors", "a1111")
    torch.save({"string_to_param": {"*": vectors}, "name": "x"}, small / "word_old.pt")
    (small / "bert").mkdir()
    write_encoder(small / "bert")
    findings = ("pleural effusion", "lung nodule")
    judge = Judge(JudgeConfig(findings, 32, 8, 8, (1, 1)))
    for folder in (small, seeds / "weights"):
        save_judge(folder / "judge.safetensors", judge)
    with contextlib.suppress(ImportError):
        from test_dicom_files import SHIPPED

        for i, path in enumerate(p for p in SHIPPED if p.stat().st_size < 60_000):
            shutil.copy(path, seeds / "dicom" / f"{i:03}.dcm")

    few = {"steps": 1, "batch_size": 2, "learning_rate": 1e-3, "warmup": 1, "ema": 0.0}
    few |= {"sample_every": 0, "save_every": 1, "out": "run"}
    data = {"phantoms": 8, "size": 32, "cache": "cache"}
    fresh, begun = {"config": str(seeds / "sizes.json")}, {"path": str(model)}
    network = {"findings": findings, "size": 32, "channels": 8, "growth": 8, "blocks": [1, 1]}
    tiny = {"width": 16, "layers": 1, "heads": 2, "feedforward": 32, "vocab_size": 300}
    encoder = {"encoder": str(small / "bert"), "hidden": 8}
    methods = {
        "vae": (fresh, {"crop": 32}),
        "text": (fresh | begun, {"pixels": 16, "channels": 8}),
        "unet": (begun, {"variants": 1}),
        "judge": ({}, {"network": network}),
        "bert": ({}, {"network": tiny}),
        "textual_inversion": (begun, {"kinds": KINDS}),
        "finetune": (begun, {"kinds": KINDS}),
        "projection": (begun | {"parts": ["text"]}, encoder),
    }
    trainings = [
        {"train": {"method": name, **few}, "data": data, "model": start, "method": options}
        for name, (start, options) in methods.items()
    ]
    (seeds / "trainings.json").write_text(json.dumps(trainings))
    os.chdir(seeds)
    main = main_of("train.py")
    for run in trainings:
        Path("run.yaml").write_text(json.dumps(run))
        if main(["run.yaml"]):
            raise SystemExit(f"{run['train']['method']} cannot be trained")
        Path("run").rename(f"run_{run['train']['method']}")
    Path("bert").symlink_to(small / "bert")
    run = {**trainings[-1], "method": {**encoder, "encoder": "bert"}}
    Path("run.yaml").write_text(json.dumps(run))
    main(["run.yaml"])
    shutil.move("run/model.safetensors", small / "projection.safetensors")
    shutil.rmtree("run")
    Path("bert").unlink()
    run = trainings[-2]
    run["train"]["steps"] = 4
    Path("run.yaml").write_text(json.dumps(run))
    main(["run.yaml"])
    Path("run").rename("finished")
    save = Trainer._save_checkpoint

    def stop(trainer: Trainer, step: int) -> None:
        save(trainer, step)
        if step == 2:
            raise KeyboardInterrupt

    Trainer._save_checkpoint = stop
    main(["run.yaml"])
    Path("run").rename("stopped")

    draw = main_of("sample.py")
    given = ["--model", str(model)]
    draw([*given, *DRAW])
    shutil.move("out/00000.png", "drawn.png")
    shutil.rmtree("out")
    edit = [*given, "--init", str(seeds / "big.png"), *OUTPAINT, "--out"]
    draw([*edit, "painting"])
    inpaint, count = image_editing.inpaint, iter((0, 1))

    def stop_third(*arguments: object) -> object:
        if next(count, None) is None:
            raise KeyboardInterrupt
        return inpaint(*arguments)

    image_editing.inpaint = stop_third
    draw([*edit, "stopped_painting"])
    image = io.StringIO()
    with contextlib.redirect_stdout(image):
        open_image(["big.png"])
    Path("big.txt").write_text(image.getvalue())
    folder = make(seeds / "made", 4, 1, 1)
    (seeds / "study").mkdir()
    shutil.copy(folder / "key.json", seeds / "study")
    key = key_of(seeds / "study")
    answer_all(key, "A", lambda trial: ("fake", 3), seeds / "study" / "answers.json")
    shutil.copy(ROOT / "docs/spot_the_fake_lungs.json", seeds / "study" / "counts.json")


# --- running and checking ---


def open_table(arguments: list[str]) -> int:
    from ldm.data import DataConfig
    from ldm.data.film_rows import read_rows

    rows, count = read_rows(Path(arguments[0]), DataConfig())
    print(len(rows), sum(map(len, count.skipped.values())))
    return 0


def open_image(arguments: list[str]) -> int:
    from ldm.pictures import image_files

    levels = image_files.load(arguments[0])
    if not levels.isfinite().all():
        raise AssertionError("levels that are no numbers")
    print(tuple(levels.shape), hashlib.sha256(levels.numpy().tobytes()).hexdigest())
    return 0


def main_of(program: str) -> Callable[[list[str]], int]:
    """What a program does in this process, with its errors in one line."""
    from ldm.system import cli

    own = {"table": open_table, "image": open_image}
    main = own.get(program) or importlib.import_module(MODULES[program]).main
    if program == "python -m ldm.weights":
        return main
    level = 20 if program == "train.py" else 30  # logging.INFO, as in train.py
    return lambda arguments: cli.run(lambda: main(arguments), program, level)


def start(case: Case, place: Path, real: bool) -> int:
    """Run a case in a fork, in the folder place/work; returns its process."""
    if process := os.fork():
        return process
    status = 99
    try:
        signal.alarm(SECONDS)
        for limit, most in (("AS", 10 * 10**9), ("FSIZE", 4 * 10**9), ("CORE", 0)):
            resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (most, most))
        os.chdir(place / "work")
        for fd, name in enumerate((os.devnull, place / "out", place / "err")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), fd)
        if real:
            script = {"python -m ldm.weights": ["-m", "ldm.weights"]}.get(case.program)
            script = script or [str(ROOT / case.program)]
            signal.alarm(3 * SECONDS)
            os.execv(sys.executable, [sys.executable, *script, *case.arguments])
        logging.root.handlers.clear()
        sys.stdout = open(1, "w", errors="surrogateescape")  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
        status = main_of(case.program)(case.arguments)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def faults(case: Case, result: Result, work: Path, before: set[str], outside: bool) -> list[str]:
    """Those of FAULTS that a case shows; before: the unfinished files that were there."""
    lines, found = result.err.splitlines(), []
    known = re.compile(rf"{re.escape(case.program)}[\w -]*: ")
    hung = result.status == -signal.SIGALRM
    if not hung and (result.status not in (0, 2) or "Traceback" in result.err):
        found.append("traceback")
    found += ["hang"] * hung
    found += ["memory"] * (result.bytes > BYTES)
    odd = [c for c in result.out + result.err if not c.isprintable() and c != "\n"]
    found += ["control"] * bool(odd)
    long = any(len(line) > CHARACTERS or not known.match(line) for line in lines)
    found += ["line"] * (long or (result.status == 2 and not lines))
    after = unfinished(work)
    found += ["leftover"] * (after > before and not hung)
    found += ["outside"] * outside
    if result.status == 0:
        os.chdir(work)
        try:
            silent = not case.fine(result)
        except Exception as error:
            silent = bool(print(repr(error), file=sys.stderr)) or True
        found += ["silent"] * silent
    return found


def unfinished(work: Path) -> set[str]:
    return {str(path) for path in work.rglob("*.partial")}


def tree(*places: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of every file."""
    found = []
    for place in places:
        for path in [place, *place.rglob("*")]:
            info = path.lstat()
            found.append((str(path), info.st_size, info.st_mtime_ns))
    return found


def make_case(family: str, seed: int, number: int, seeds: Path, work: Path) -> Case:
    work.mkdir(parents=True)
    os.chdir(work)
    return FAMILIES[family](random.Random(f"{family} {seed} {number}"), seeds)


def prepare(out: Path) -> Path:
    """Import everything, make what cases damage; returns its folder."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    os.environ |= {"TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    os.environ |= {"HOME": str(out / "home"), "TMPDIR": str(out / "home"), "MPLBACKEND": "agg"}
    import ldm

    for module in pkgutil.walk_packages(ldm.__path__, "ldm."):
        if "__main__" not in module.name and "flash_attention" not in module.name:
            importlib.import_module(module.name)
    for name in ("sample", "train", "evaluate", "matplotlib.pyplot", "conftest"):
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    print("imported", file=sys.stderr)
    importlib.import_module("ldm.clip").tokenizer()
    if os.environ.get("REUSE"):
        shutil.rmtree(out / "kept", ignore_errors=True)
        shutil.rmtree(out / "cases", ignore_errors=True)
        return out / "seeds"
    shutil.rmtree(out, ignore_errors=True)
    (out / "home").mkdir(parents=True)
    gc.freeze()
    seeds = out / "seeds"
    if not (process := os.fork()):
        status = 1
        try:
            os.dup2(os.open(out / "plant.log", os.O_RDWR | os.O_CREAT), 1)
            os.dup2(1, 2)
            plant(seeds)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(process, 0)[1]:
        raise SystemExit("the whole inputs cannot be made")
    return seeds


def check(
    out: Path, families: list[str], seed: int, count: int, seconds: float, jobs: int = 2
) -> dict[str, Counter[str]]:
    """Run cases of the families in turn; returns {family: how often what happened}."""
    seeds, table = prepare(out), {family: Counter[str]() for family in families}
    running: dict[int, tuple] = {}
    numbers, stop, calm = iter(range(count)), time.monotonic() + seconds, tree(seeds, out / "home")
    while True:
        number = next(numbers, None) if len(running) < jobs and time.monotonic() < stop else None
        if number is not None:
            family = families[number % len(families)]
            place = out / "cases" / f"{family}-{seed}-{number}"
            case = make_case(family, seed, number, seeds, place / "work")
            real = number % 100 == 99 and case.program in MODULES
            before = unfinished(place / "work")
            running[start(case, place, real)] = (family, number, case, place, before, real)
            continue
        if not running:
            return table
        process, status, used = os.wait4(-1, 0)
        family, number, case, place, before, real = running.pop(process)
        texts = [(place / n).read_bytes().decode(errors="replace") for n in ("out", "err")]
        status = os.waitstatus_to_exitcode(status)
        result = Result(status, *texts, used.ru_maxrss * 1024)
        now = tree(seeds, out / "home")
        found = faults(case, result, place / "work", before, now != calm)
        calm = now
        table[family].update(["n", *found, f"exit {status}" if status in (0, 2) else "other exit"])
        shutil.rmtree(place / "work")
        if found:
            make_case(family, seed, number, seeds, place / "work")
            keep(out, place, case, found)
        else:
            shutil.rmtree(place)
        os.chdir(out)


def keep(out: Path, place: Path, case: Case, found: list[str]) -> None:
    script = {"python -m ldm.weights": "-m ldm.weights"}.get(case.program)
    script = script or str(ROOT / case.program)
    words = " ".join(map(shlex.quote, case.arguments))
    command = f'cd "$(dirname "$0")/work" && PYTHONPATH={ROOT} {sys.executable} {script} {words}\n'
    (place / "command.sh").write_text(command, errors="surrogateescape")
    (place / "faults").write_text(" ".join(found) + "\n")
    (out / "kept").mkdir(exist_ok=True)
    place.rename(out / "kept" / place.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--family", choices=FAMILIES, nargs="+", default=list(FAMILIES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=int, default=SECONDS)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    options = parser.parse_args()
    globals()["SECONDS"] = options.limit
    began = time.monotonic()
    given = (options.family, options.seed, options.count, options.seconds, options.jobs)
    table = check(options.out.resolve(), *given)
    columns = ["n", "exit 0", "exit 2", *FAULTS]
    for name, row in [*table.items(), ("all", sum(table.values(), Counter()))]:
        print("| " + " | ".join([name, *(str(row[column]) for column in columns)]) + " |")
    bad = sum(sum(row[fault] for fault in FAULTS) for row in table.values())
    print(f"{sum(r['n'] for r in table.values())} cases, {bad} faults, {time.monotonic() - began:.0f} s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
