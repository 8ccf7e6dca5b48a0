"""Draw radiographs:  python sample.py --prompt "lung xray with pleural effusion" """

import argparse
import sys
from pathlib import Path

from ldm.drawing import edit_settings
from ldm.system import cli

NOISE = "noise levels sigma with guidance; without it is twice as fast (0,inf)"
BUILT_IN = Path(__file__).resolve().parent / "weights"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; None: as in the PNG of --from, else the model's or the default."""
    parser = cli.Parser("sample.py", "Draw synthetic radiographs; each PNG says how to redraw it.")
    add = parser.add_argument
    parser.add_many("--prompt", "prompts", "TEXT", "what to draw", cli.prompt)
    add("--prompts", dest="file", metavar="FILE", help="a text file with one prompt a line")
    add("--from", dest="image", metavar="PNG", help="draw it again, but for the options given")
    add("--negative", metavar="TEXT", type=cli.line, help="what not to draw")
    add("--strict", action="store_true", help="draw nothing if a word was never trained on")
    add("--prompt-syntax", choices=("a1111", "comfyui"), help="read (word:1.2), [word] and BREAK")
    add("--long-prompts", choices=("cut", "chunks"), help="what lies beyond 77 tokens (cut)")
    add("--n", type=cli.whole(1), metavar="N", help="images for each prompt (4; with --init 1)")
    add("--seed", type=cli.whole(), metavar="N", help="another seed, other images (0)")
    add("--start", type=cli.whole(0, 10**9), metavar="I", help="index of the first image (0)")
    add("--steps", type=cli.whole(1), metavar="N", help="more are finer and slower (20)")
    add("--sampler", metavar="S", help="ddpm, ddim, plms, dpm++, dpm++sde, euler, heun (dpm++)")
    add("--guidance", type=cli.finite, metavar="X", help="how much text counts, 1: off (model's)")
    add("--guidance-interval", dest="interval", type=cli.interval, metavar="LOW,HIGH", help=NOISE)
    add("--size", type=cli.size, metavar="N|WxH", help="pixels (model's)")
    cli.model_arguments(parser)
    add("--out", type=cli.folder, metavar="FOLDER", help="where to (samples, edited or redrawn)")
    add("--dicom", action="store_true", default=None, help="write DICOM, each marked as synthetic")
    add("--modality", choices=("CR", "DX", "CT"), help="of the DICOM files (DX)")
    add("--trajectory", action="store_true", help="also trajectory.png: x0 as predicted on the way")
    what = "also 00000_words.png: where each word is looked at, CELLS across (the most there are)"
    add("--word-maps", nargs="?", const=0, type=cli.whole(1), metavar="CELLS", help=what)
    add("--json", action="store_true", help="print one JSON object: paths and seconds")
    editing_arguments(parser)
    options = parser.parse_args(arguments)
    if options.file:
        options.prompts = options.prompts + cli.read_prompts(options.file)
    if not (options.prompts or options.image):
        parser.error("nothing to draw; give --prompt, --prompts or --from")
    if options.modality and not options.dicom:
        parser.error("--modality is of DICOM; give --dicom, too")
    options.dicom = options.dicom and (options.modality or "DX")
    if edit := cli.given(vars(options), edit_settings.Edit):
        edit_settings.check_options(parser, options, edit)
    # not samples/ for an image of it drawn again: that would replace the grid it was in
    usual = "redrawn" if options.image else "edited" if options.init else "samples"
    options.out = options.out or Path(usual)
    cli.check_folder(options.out)
    return options


def editing_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("editing", "Change an image, which keeps its size.")
    add = group.add_argument
    add("--init", metavar="IMG", help="the image: PNG, JPEG ... of 64 pixels a side or more")
    what = "how much of it to draw anew, from above 0 to 1: all of it (0.6; with --invert 1)"
    add("--strength", type=cli.finite, metavar="S", help=what)
    what = "by inversion: the same chest as --prompt has it; TEXT says what it shows now (--prompt)"
    add("--invert", nargs="?", const="", metavar="TEXT", type=cli.line, help=what)
    add("--mask", metavar="IMG", help="repaint where it is white; all else stays bit for bit")
    add("--grow", type=cli.whole(0), metavar="N", help="repaint N pixels around the mask, too (0)")
    what = "repaint where the mask is black"
    add("--invert-mask", action="store_const", const=True, help=what)
    what = "paint this many pixels beyond each edge, window by window; once stopped it goes on"
    margins = "LEFT,TOP,RIGHT,BOTTOM"
    add("--outpaint", type=cli.pixels(margins), metavar=margins, help=what)
    add("--canvas", type=cli.size, metavar="WxH", help="the same, by the size of the result")
    add("--at", type=cli.pixels("X,Y"), metavar="X,Y", help="where the image lies on the canvas")
    what = "take each step N times when repainting: slower, and fits the rest better (4)"
    add("--resample", type=cli.whole(1), metavar="N", help=what)


def main(arguments: list[str] | None = None) -> int:
    watch = cli.Stopwatch()
    options = parse(arguments)
    with watch("imports"), cli.no_garbage():  # after the options were read: these take seconds
        from ldm import clip
        from ldm.drawing import drawing_settings, picture_folder
        from ldm.system import devices
        from ldm.weights import loading

        clip.tokenizer()
    settings = drawing_settings.from_options(vars(options))
    if options.word_maps is not None:
        from ldm.drawing import word_maps

        word_maps.check_options(vars(options), settings)
    if options.init is not None:
        from ldm.drawing import edited_pictures

        settings, original = edited_pictures.open_original(settings, vars(options))
    device = devices.choose(settings.device)
    model = BUILT_IN if options.model is None else Path(options.model)
    with watch("load"):
        # as in the file: weights of two bytes that stay so never take four
        pipe = loading.load(model, options.config, options.ema, None, options.parts)
        if options.words or options.loras:
            from ldm.weights import adapters

            adapters.apply(pipe, options.words, options.loras)
        if options.text_encoder is not None:
            from ldm.text import projected_encoder

            projected_encoder.replace_text(pipe, options.text_encoder)
        if settings.prompt_syntax or settings.long_prompts:
            from ldm.text import weighted_prompts

            also = [settings.negative, (settings.edit and settings.edit.invert) or ""]
            how = settings.prompt_syntax, settings.long_prompts
            weighted_prompts.use(pipe, [*settings.prompts, *also], *how)
        chosen = options.model is not None
        drawing_settings.check_weights(settings, pipe, chosen, options.strict)
        pipe.to(device, devices.DTYPES[settings.dtype])
        if settings.switches != drawing_settings.NO_SWITCHES:
            from ldm.fast import switches

            switches.choose(pipe, *settings.switches)
    if options.init is None:
        painter = picture_folder.prepare(pipe, settings, watch)
    else:
        painter = edited_pictures.prepare(pipe, settings, original, options.out, watch)
    if options.word_maps is not None:
        painter = word_maps.with_maps(painter, pipe, settings, options.out, options.word_maps)
    processes = devices.join_processes()
    to = (options.out, model.resolve().name)
    paths = picture_folder.draw(painter, pipe, settings, *to, watch, processes, options.trajectory)
    devices.leave_processes()
    if processes.leads:
        print(cli.report(paths, watch, options.json))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "sample.py"))
