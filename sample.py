"""Draw radiographs:  python sample.py --prompt "lung xray with pleural effusion" """

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ldm import cli
from ldm.edit import options as editing

NOISE = "noise levels sigma with guidance; without it is twice as fast (0,inf)"
BUILT_IN = Path(__file__).resolve().parent / "weights"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; None is left to the image of --from, then to the model and the defaults."""
    parser = cli.Parser("sample.py", "Draw synthetic radiographs; each PNG says how to redraw it.")
    add = parser.add_argument
    parser.add_many("--prompt", "prompts", "TEXT", "what to draw", cli.prompt)
    add("--prompts", dest="file", metavar="FILE", help="a text file with one prompt a line")
    add("--from", dest="image", metavar="PNG", help="draw it again, but for the options given")
    add("--negative", metavar="TEXT", type=cli.line, help="what not to draw")
    add("--n", type=cli.whole(1), metavar="N", help="images for each prompt (4; with --init 1)")
    add("--seed", type=cli.whole(), metavar="N", help="another seed, other images (0)")
    add("--start", type=cli.whole(0), metavar="I", help="index of the first image (0)")
    add("--steps", type=cli.whole(1), metavar="N", help="more are finer and slower (20)")
    add("--sampler", metavar="S", help="ddpm, ddim, plms, dpm++, dpm++sde, euler, heun (dpm++)")
    add("--guidance", type=cli.finite, metavar="X", help="how much text counts, 1: off (model's)")
    add("--guidance-interval", dest="interval", type=cli.interval, metavar="LOW,HIGH", help=NOISE)
    add("--size", type=cli.size, metavar="N|WxH", help="pixels (model's)")
    cli.model_arguments(parser)
    add("--out", type=Path, metavar="FOLDER", help="where to (samples, edited or redrawn)")
    add("--trajectory", action="store_true", help="also trajectory.png: x0 as predicted on the way")
    add("--json", action="store_true", help="print one JSON object: paths and seconds")
    editing.arguments(parser)
    options = parser.parse_args(arguments)
    if options.file:
        options.prompts = options.prompts + cli.read_prompts(options.file)
    if not (options.prompts or options.image):
        parser.error("nothing to draw; give --prompt, --prompts or --from")
    editing.check(parser, options)
    options.out = options.out or editing.folder(options)
    cli.check_folder(options.out)
    return options


def main(arguments: list[str] | None = None) -> int:
    watch = cli.Stopwatch()
    options = parse(arguments)
    with watch("imports"), cli.no_garbage():  # after the options were read: these take seconds
        from ldm import adapters, devices, gallery, speed, world
        from ldm.edit import album
        from ldm.models import clip
        from ldm.order import check_weights, order_of
        from ldm.pipeline import LatentDiffusion

        clip.tokenizer()
    order = order_of(vars(options), options.image)
    job = album.open_job(vars(options), options.image)
    device = devices.choose(order.device)
    model = BUILT_IN if options.model is None else Path(options.model)
    with watch("load"):
        # as in the file: weights of two bytes that stay so never take four
        pipe = LatentDiffusion.load(model, options.config, options.ema, dtype=None)
        adapters.apply(pipe, options.words, options.loras, options.text_encoder)
        check_weights(order, pipe, chosen=options.model is not None)
        pipe.to(device, devices.DTYPES[order.dtype])
        speed.choose(pipe, order.attention, order.winograd, order.tiled, order.compile)
    here, name = world.join(), model.resolve().name
    if job is not None:
        paths = album.draw(pipe, order, job, options.out, name, watch, here)
    else:
        paths = gallery.draw(pipe, order, options.out, name, watch, options.trajectory, here)
    world.leave()
    if here.leads:
        print(cli.report(paths, watch, options.json))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "sample.py"))
