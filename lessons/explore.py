"""A page to play with: two prompts from the same noise, step by step, in one file.

    python -m lessons.explore --prompt "lung xray with pleural effusion" --other "lung xray"

The page needs no network: it holds what the built-in model computed at each step of DDIM.
"""

import argparse
import base64
import io
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from einops import rearrange
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import ldm
from ldm.clip import tokenizer
from ldm.drawing import word_maps
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.samplers import Step
from ldm.system import atomic, cli

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = Path(__file__).with_suffix(".html")
PROMPTS = {"prompt": "lung xray with pleural effusion", "other": "lung xray, no findings"}
MOST_TOKENS = 24  # each has its maps at each step: beyond, the page grows past 10 MB


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser("lessons.explore", __doc__.splitlines()[0])
    add = parser.add_argument
    for name, usual in PROMPTS.items():
        add(f"--{name}", default=usual, type=cli.prompt, metavar="TEXT", help=f'("{usual}")')
    add("--seeds", type=int, choices=range(1, 4), default=3, metavar="N", help="1 to 3 (3)")
    parser.add_many("--guidance", "guidances", "X", "at most four (1, 2, 4, 8)", cli.finite)
    add("--steps", type=int, choices=range(1, 11), default=10, metavar="N", help="1 to 10 (10)")
    add("--renew", metavar="PAGE", help="draw nothing, lay out again what this page holds")
    add("--link", metavar="PREFIX", type=cli.line, help="how links begin (the way from FILE here)")
    add("--out", type=cli.folder, default=Path("explore.html"), metavar="FILE", help="where to")
    options = parser.parse_args(arguments)
    options.guidances = list(dict.fromkeys(options.guidances or (1.0, 2.0, 4.0, 8.0)))
    if len(options.guidances) > 4:
        parser.error(f"a page has at most four guidances, got {len(options.guidances)}")
    cli.check_folder(options.out.parent)
    return options


def contents(
    pipe: LatentDiffusion, prompts: Sequence[str], seeds: int, guidances: list[float], steps: int
) -> dict[str, Any]:
    """All that the page shows, for JSON; its runs are [seed][guidance][prompt], seeds from 0."""
    tokens = [_tokens(pipe, prompt) for prompt in prompts]
    size = pipe.config.image_size
    settings = [
        Sampling(seed, steps, "ddim", guidance, height=size, width=size)
        for seed, guidance in itertools.product(range(seeds), guidances)
    ]
    bar = tqdm(settings, "drawing", unit="run", disable=None, leave=False)
    runs = [_run(pipe, prompts, how, [len(names) for names in tokens]) for how in bar]
    return {
        **{"prompts": prompts, "tokens": tokens, "length": pipe.config.text.context_length},
        **{"seeds": seeds, "guidances": guidances, "times": pipe.timesteps(steps).tolist()},
        **{"size": size, "latent": pipe.latent_shape(size, size)},
        "v": pipe.schedule.prediction == "v",
        "alpha_bar": _rounded(pipe.schedule.alpha_bar),
        "snr": _rounded(pipe.schedule.snr(torch.arange(pipe.schedule.steps))),
        "runs": [runs[i : i + len(guidances)] for i in range(0, len(runs), len(guidances))],
    }


def _tokens(pipe: LatentDiffusion, prompt: str) -> list[str]:
    """The tokens in words; the padding, which the U-Net attends to as well, is one entry."""
    ids = pipe.text.tokenize([prompt])[0].tolist()
    end = ids.index(tokenizer().eot_token_id)  # the first: the padding is of the same token
    if end + 1 > MOST_TOKENS:
        raise ValueError(f"{prompt!r} has {end + 1} tokens; a page has room for {MOST_TOKENS}")
    words = [tokenizer().decode([i]).strip() for i in ids[1:end]]
    return ["start", *words, "end", f"padding ({len(ids) - end - 1} tokens)"]


def _run(
    pipe: LatentDiffusion, prompts: Sequence[str], how: Sampling, tokens: Sequence[int]
) -> list[dict[str, Any]]:
    """For each prompt strips of pictures, with a column for each step, and figures of each step.

    picture: x0 decoded;  latents: a row for each channel of x_t, eps, x0, in -range ... range
    maps: roots of weights, 0 ... 1; a row for each layer and head, a column for each step and token
    """
    context = pipe.encode_each(prompts)
    negative = None if how.guidance == 1 else pipe.encode_each([how.negative])
    same, found = [0] * len(prompts), []  # one index: the prompts share their noise
    steps: list[Step] = []
    with word_maps.recorded(pipe.unet) as layers:
        pipe.sample_latents(context, negative, same, how, steps.append)
    x = torch.stack([pipe.noise_source(how, same)(-1), *(step.x for step in steps[:-1])])
    for b, kept in enumerate(tokens):
        x_t, x0 = x[:, b], torch.stack([step.x0[b] for step in steps])  # [T, C, h, w]
        eps = pipe.schedule.predict_eps(x_t, x0, pipe.timesteps(how.steps))
        latents = torch.stack([x_t, eps, x0])  # [3, T, C, h, w]
        top = float(latents.abs().max())
        # with guidance the batch is [negative, prompts]: [layers, T, N, L, S]
        weights = torch.stack([torch.stack(each)[:, b - len(prompts)] for each in layers.values()])
        padding = weights[..., kept - 1 :].sum(-1, keepdim=True)
        roots = torch.cat([weights[..., : kept - 1], padding], dim=-1).sqrt()
        side = math.isqrt(roots.shape[-2])
        maps = rearrange(2 * roots - 1, "l T N (h w) S -> 1 (l N h) (T S w)", h=side)
        rows = rearrange(latents / top, "K T C h w -> 1 (K C h) (T w)")
        picture = image_files.to_channels(rearrange(pipe.decode(x0), "T C H W -> C H (T W)"), 1)
        found.append(
            {
                "picture": _jpeg(image_files.to_integers(picture)),
                "latents": _uri("png", image_files.png(rows, {"synthetic": "yes"})),
                "maps": _uri("png", image_files.png(maps, {"synthetic": "yes"})),
                **{"range": top, "heads": weights.shape[2], "side": side},
                "layers": [name.removesuffix(".blocks.0") for name in layers],
                "rms": [_rms(each) for each in latents],
                "distance": _rms(x0 - x0[-1:]),
            }
        )
    return found


def _rms(x: Tensor) -> list[float]:
    """|x| / sqrt(n) of each step;  x: [T, C, h, w]"""
    return _rounded(x.flatten(1).square().mean(1).sqrt())


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def _jpeg(levels: Any) -> str:
    """uint8 [H, W, 1];  at quality 92 a grey level is off by less than one on average"""
    content = io.BytesIO()
    Image.fromarray(levels[..., 0]).save(content, "JPEG", quality=92, comment="synthetic: yes")
    return _uri("jpeg", content.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def html(data: dict[str, Any], link: str) -> str:
    """link: what links to the code begin with"""
    here = FileSystemLoader(TEMPLATE.parent)
    pages = Environment(loader=here, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    given = {"data": data, "link": link, "line_of": line_of}
    return pages.get_template(TEMPLATE.name).render(given, version=atomic.code_version(TEMPLATE))


def line_of(file: str, code: str) -> int:
    """The number of the line, from 1, that contains the code; ValueError unless just one does."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, 1) if code in line]
    if len(found) != 1:
        raise ValueError(f"{file} has {len(found)} lines with {code!r}; correct {TEMPLATE.name}")
    return found[0]


def read(page: str | Path) -> dict[str, Any]:
    """What a page holds, as `contents` gave it. Raises ValueError for any other file."""
    text = cli.regular(page).read_text(encoding="utf-8", errors="replace")
    found = re.search(r'<script id="data" type="application/json">(.+?)</script>', text)
    if found is None:
        raise ValueError(f"{page} was not made by lessons.explore")
    return json.loads(found[1])


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.renew is not None:
        data = read(options.renew)
    else:
        pipe, prompts = ldm.load(ROOT / "weights"), (options.prompt, options.other)
        data = contents(pipe, prompts, options.seeds, options.guidances, options.steps)
    way = quote(Path(os.path.relpath(ROOT, options.out.parent)).as_posix())
    page = html(data, f"{way}/" if options.link is None else options.link)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic.whole_file(options.out) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    sys.stdout.write(cli.printable(str(options.out)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "lessons.explore"))
