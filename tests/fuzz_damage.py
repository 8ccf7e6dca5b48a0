"""Damage to a file: to its bytes, to what they mean, or something else in its place."""

import contextlib
import json
import os
import random
import re
from pathlib import Path
from typing import Any, NamedTuple

HOSTILE = json.loads(Path(__file__).with_name("hostile.json").read_text(encoding="utf-8"))
PIECES, VALUES, CELLS, MARKS, NAMES, WORDS = (
    [word[0] * int(word[2:]) if re.fullmatch(".@[0-9]+", str(word)) else word for word in words]
    for words in HOSTILE.values()
)  # x@5000: 5,000 of them
VALUES += PIECES
WORDS += [*NAMES, *(piece for piece in PIECES if piece != "\0")]


class Damage(NamedTuple):
    """how: cut, flip, bytes, place, value, nan, drop, double, ...;  key: of the value, and it"""

    how: str
    key: Any = ""
    value: Any = None


def broken(draw: random.Random, content: bytes, pieces: list[str] = PIECES) -> bytes:
    """Bytes changed, cut out, repeated or put in, half of them near the start."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 4, 16))):
        at, how = int(len(data) * draw.random() ** draw.choice((1, 4))), draw.randrange(8)
        if how == 5:
            del data[at : at + draw.randrange(1, 40)]
        elif how == 6:
            data[at:at] = data[at : at + 20]
        elif how == 7:
            data[at:at] = draw.choice(pieces).encode()
        else:
            data[at : at + 1] = bytes([draw.randrange(256)])
    return bytes(data)


def odd(draw: random.Random, array: Any) -> tuple[str, Any]:
    """A tensor or array as it should not be."""
    how = draw.randrange(5)
    if how < 2:
        array = array * 1.0
        array.reshape(-1)[:1] = draw.choice((float("nan"), float("inf")))
        return "nan", array
    return "value", (array.reshape(-1), array[None], array > 0)[how - 2]


def change(draw: random.Random, tree: Any) -> Damage:
    """Replace, drop or double a value anywhere in dicts and lists."""
    places: list[tuple[Any, Any]] = []

    def walk(holder: Any) -> None:
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            places.append((holder, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(tree)
    if not places:
        return Damage("")
    holder, key = draw.choice(places)
    value, how, old = draw.choice(VALUES), draw.random(), holder[key]
    if how < 0.1:
        del holder[key]
        return Damage("drop", key)
    if how < 0.2 and isinstance(holder, list):
        holder += [old] * draw.choice((1, 1, 1000))
        return Damage("double", key, old)
    name = "value"
    if "U" not in str(getattr(old, "dtype", "U")) and draw.random() < 0.8:  # a tensor, no text
        name, value = odd(draw, old)
    key = draw.choice(PIECES) if how < 0.3 and isinstance(holder, dict) else key
    holder[key] = value
    return Damage(name, key, value)


def text_of(tree: Any, yaml: bool = False) -> bytes:
    """JSON, of which YAML spells NaN otherwise."""
    text = json.dumps(tree, ensure_ascii=False)
    text = text.replace("NaN", ".nan").replace("Infinity", ".inf") if yaml else text
    wide, deep = "[" + "9," * 99_999 + "9]", "[" * 99_999 + "]" * 99_999
    return text.replace('"@deep"', deep).replace('"@wide"', wide).encode("utf-8", "replace")


def change_weights(draw: random.Random, file: Path) -> Damage:
    """A tensor, the header of a safetensors file, or the JSON in its metadata."""
    from safetensors.torch import load_file, save_file

    content, way = file.read_bytes(), draw.random()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    said = header.get("__metadata__", {})
    if way < 0.5 and (state := load_file(file)):
        key = draw.choice([*state, ""])
        how, value = odd(draw, state[key]) if key else ("value", next(iter(state.values())))
        save_file({**state, key or draw.choice(PIECES): value.clone().contiguous()}, file, said)
        return Damage(how, key)
    kinds = [kind for kind, text in said.items() if text[:1] == "{"]
    if inner := kinds and way < 0.8:
        values = json.loads(said[kinds[0]])
        damage = change(draw, values)
        said[kinds[0]] = text_of(values).decode()
    else:
        damage = change(draw, header)
    text = text_of(header)
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    return damage if inner else Damage("header")


def change_table(draw: random.Random, file: Path, seeds: Path) -> Damage:
    """Of a CSV: a column twice, a film elsewhere, one quotation mark, or anything."""
    lines = file.read_text().splitlines()
    row, how = draw.randrange(1, len(lines)), draw.randrange(6)
    if how == 0:
        lines[0] += ",filename"
        lines[1:] = [f"{line},a.png" for line in lines[1:]]
    elif how == 1:
        place = draw.choice(("../../whole/films/1.png", str(seeds / "whole/films/1.png")))
        lines[row] = place + lines[row].removeprefix("a.png")
    text = "\n".join(lines)
    for _ in range(how == 2 or draw.randint(1, 3) * (how > 2)):
        at, piece = draw.randrange(len(text)), '"' if how == 2 else draw.choice(CELLS + PIECES)
        text = text[:at] + piece + text[at + (draw.randint(0, 3) if how > 2 else 0) :]
    file.write_bytes(text.encode(draw.choice(("utf-8", "utf-16")) if how > 2 else "utf-8"))
    return Damage(("twice", "elsewhere", "quote", "", "", "")[how])


def change_png(draw: random.Random, file: Path) -> Damage:
    """Its text, by which it is drawn again."""
    from PIL import Image, PngImagePlugin

    with Image.open(file) as image:
        image.load()
        info, said = PngImagePlugin.PngInfo(), dict(image.info)
        damage = change(draw, said)
        for key, value in said.items():
            with contextlib.suppress(ValueError, UnicodeError):
                info.add_itxt(key[:79] or "x", str(value))
        image.save(file, pnginfo=info)
    return damage


def spoil(draw: random.Random, file: Path, seeds: Path) -> Damage:
    """Damage a file: its bytes, what they mean, or what lies in its place."""
    import numpy as np
    import torch

    content, way, kind = file.read_bytes(), draw.random(), file.suffix
    if way < 0.12 and content:
        file.write_bytes(content[: draw.randrange(len(content))])
        return Damage("cut")
    if way < 0.2 and content:
        data = bytearray(content)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
        return Damage("flip")
    if way < 0.26:
        file.unlink()
        other = draw.choice([p for p in sorted((seeds / "whole").rglob("*")) if p.is_file()])
        target = ("/dev/zero", "/dev/null", "/dev/full", file.name, other)
        ways = [file.mkdir, lambda: os.mkfifo(file), lambda: None]
        draw.choice([*ways, *(lambda to=to: file.symlink_to(to) for to in target)])()
        return Damage("place")
    if kind in (".json", ".jsonl", ".yaml") and content[:1] in (b"{", b"[") and way < 0.8:
        texts = content.splitlines() if kind == ".jsonl" else [content]
        trees = [json.loads(text) if text[:1] in b"{[" else text.decode() for text in texts]
        damage = change(draw, trees)
        file.write_bytes(b"\n".join(text_of(tree, kind == ".yaml") for tree in trees))
        return damage
    if kind == ".safetensors" and way < 0.9:
        return change_weights(draw, file)
    if kind in (".pt", ".ckpt") and way < 0.9:
        whole = [torch.load(file, weights_only=True)]
        damage = change(draw, whole)
        torch.save(whole[0] if whole else None, file)
        # whole again by its checksums: what another training would have written
        return damage._replace(how="forged") if "checkpoint" in file.name else damage
    if kind == ".npz" and way < 0.8:
        with np.load(file) as stored:
            whole = dict(stored)
        damage = change(draw, whole)
        np.savez(file, **{str(key): np.asarray(value, None) for key, value in whole.items()})
        return damage
    if kind == ".csv":
        return change_table(draw, file, seeds)
    if kind == ".png" and way < 0.8 and b"sampler" in content:
        return change_png(draw, file)
    file.write_bytes(broken(draw, content, MARKS + PIECES if len(content) < 9999 else PIECES))
    return Damage("bytes")
