"""Draw radiographs:  python sample.py --prompt "lung xray with pleural effusion" """

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ldm.drawing import edit_options as editing
from ldm.system import cli

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
        from ldm import clip
        from ldm.drawing import edited_pictures, new_pictures
        from ldm.drawing.drawing_settings import check_weights, order_of
        from ldm.fast import switches
        from ldm.system import devices, processes
        from ldm.text import projected_encoder
        from ldm.weights import adapters, loading

        clip.tokenizer()
    order = order_of(vars(options), options.image)
    job = edited_pictures.open_job(vars(options), options.image)
    device = devices.choose(order.device)
    model = BUILT_IN if options.model is None else Path(options.model)
    with watch("load"):
        # as in the file: weights of two bytes that stay so never take four
        pipe = loading.load(model, options.config, options.ema, dtype=None)
        adapters.apply(pipe, options.words, options.loras)
        if options.text_encoder is not None:
            projected_encoder.replace_text(pipe, options.text_encoder)
        check_weights(order, pipe, chosen=options.model is not None)
        pipe.to(device, devices.DTYPES[order.dtype])
        switches.choose(pipe, order.attention, order.winograd, order.tiled, order.compile)
    here, name = processes.join(), model.resolve().name
    if job is not None:
        paths = edited_pictures.draw(pipe, order, job, options.out, name, watch, here)
    else:
        paths = new_pictures.draw(pipe, order, options.out, name, watch, options.trajectory, here)
    processes.leave()
    if here.leads:
        print(cli.report(paths, watch, options.json))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "sample.py"))
