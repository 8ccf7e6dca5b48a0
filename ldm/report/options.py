"""The options of evaluate.py, read without torch or numpy: help and mistakes answer at once."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ldm.system import cli

Add = Callable[..., Any]  # a parser's add_argument

ABOUT = "Measure a model or its parts; results are tables, pictures and a page in --out."
SETS = "a folder, a CSV, CSV@SPLIT, or phantoms:N[:FIRST_SEED]"
READERS = "Can readers tell real from synthetic? Make a page to ask on, score answers, plan."
ENCODERS = ("words", "built-in", "random", "bert")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options of one subcommand; `module` is the one of ldm.report whose run(options) measures.

    A function below that is named like such a module adds its options, and its docstring is the
    line that --help shows.
    """
    parser = cli.Parser("evaluate.py", ABOUT)
    add_subcommands(parser, "WHAT", SUBCOMMANDS, "ldm.report")
    return parser.parse_args(arguments)


def own(options: argparse.Namespace) -> dict[str, Any]:
    """{name: value} without what all subcommands have."""
    common = {"what", "way", "module", "out", "json"}
    return {name: value for name, value in vars(options).items() if name not in common}


def add_subcommands(
    parser: argparse.ArgumentParser, metavar: str, table: Mapping[str, Any], package: str
) -> None:
    """table: as SUBCOMMANDS;  package: that holds the modules"""
    subparsers = parser.add_subparsers(dest=metavar.lower(), required=True, metavar=metavar)
    for name, content in table.items():
        about = READERS if isinstance(content, Mapping) else content.__doc__
        command = subparsers.add_parser(name, description=about, help=about)
        if isinstance(content, Mapping):
            add_subcommands(command, "WAY", content, f"{package}.readers")
            continue
        add = command.add_argument
        content(add)
        out = Path("runs", "reader_study" if metavar == "WAY" else content.__name__)
        add("--out", type=cli.folder, default=out, metavar="FOLDER", help=f"where to ({out})")
        add("--json", action="store_true", help="print one JSON object")
        command.set_defaults(module=f"{package}.{content.__name__}")


def options_of_sets(add: Add) -> None:
    """Every subcommand that reads images with an extractor has them."""
    add("--weights", default="weights", metavar="FOLDER", help="of the extractors (weights)")
    add("--limit", type=cli.whole(2), metavar="N", help="images of each set at most, the first")
    skip_bad(add)


def skip_bad(add: Add) -> None:
    add("--skip-bad", action="store_true", help="go on without files that cannot be read")


def extractors(add: Add) -> None:
    what = "judge, judge_body, inception, densenet121-res224-all, clip:MODEL/PRETRAINED (judge)"
    add("--extractors", nargs="+", default=["judge"], metavar="NAME", help=what)


def classify(add: Add) -> None:
    """Are synthetic radiographs what their prompts say? (arXiv:2210.04133, section 2.8)"""
    what = f"{SETS}; PNGs without labels are read by the prompts that sample.py wrote into them"
    add("fake", metavar="FAKE", help=what)
    what = "which to measure (all that the extractor looks for)"
    add("--finding", dest="findings", nargs="+", type=cli.line, metavar="FINDING", help=what)
    what = "a set with labels, measured beside FAKE: what the classifier can do"
    add("--real", metavar="SET", help=what)
    what = "judge, judge_body, densenet121-res224-all (judge)"
    add("--extractor", default="judge", metavar="NAME", help=what)
    what = "also train classifiers on FAKE and on --real, and try both on --real"
    add("--train-on-synthetic", dest="train", action="store_true", help=what)
    what = "also count lungs, and look for the heart's side, after a trial on phantoms"
    add("--anatomy", action="store_true", help=what)
    options_of_sets(add)


def images(add: Add) -> None:
    """How far are two sets of images apart? Fréchet, KID, CMMD, precision, recall, MS-SSIM."""
    add("real", metavar="REAL", help=SETS)
    add("fake", metavar="FAKE", help="the same")
    extractors(add)
    what = "give Fréchet distances of fewer images than features, too"
    add("--few", action="store_true", help=what)
    options_of_sets(add)


def inpainting(add: Add) -> None:
    """How near is what is painted into erased boxes? (Adams et al., arXiv:2209.13696, figure 3)"""
    add("set", metavar="SET", help=SETS)
    add("--model", default="weights", metavar="PATH", help="weights of any layout (weights)")
    what = "films of each region at most, the first, one of a person (30)"
    add("--n", type=cli.whole(2), default=30, metavar="N", help=what)
    what = "phantoms of each finding, painted with it and without (30)"
    add("--findings", type=cli.whole(0), default=30, metavar="N", help=what)
    what = "a judge, of findings in what is painted (weights/judge.safetensors)"
    add("--judge", default="weights/judge.safetensors", metavar="FILE", help=what)
    add("--inverted", type=cli.whole(0), default=20, metavar="N", help="phantoms to noise (20)")
    add("--prompt", type=cli.line, metavar="TEXT", help="for every film (each one's caption)")
    add("--steps", type=cli.whole(1), default=20, metavar="N", help="for painting (20)")
    add("--quick", action="store_true", help="4 of each, 10 steps; labelled as such")
    add("--seed", type=cli.whole(), default=0, metavar="N", help="of the noise (0)")
    skip_bad(add)


def memorization(add: Add) -> None:
    """Does a set of images copy what its model was trained on? Nearest neighbours, calibrated."""
    add("fake", metavar="FAKE", help=SETS)
    what = "what was trained on: a set or a run folder; images of sample.py know their run"
    add("--train", metavar="SET", help=what)
    what = "images like it that were not trained on; the val split, or phantoms, where there are"
    add("--held-out", metavar="SET", help=what)
    what = "weights of the autoencoder that samples pass through (the run's, or weights)"
    add("--model", metavar="PATH", help=what)
    add("--extractor", default="judge", metavar="NAME", help="for the space of features (judge)")
    options_of_sets(add)


def outpainted_bodies(add: Add) -> None:
    """From a knee to the whole body: how near is it to that person? (Adams et al., figure 4)"""
    add("--model", default="weights", metavar="PATH", help="weights of any layout (weights)")
    add("--n", type=cli.whole(2), default=30, metavar="N", help="persons, from the knees (30)")
    what = "persons for each other start; 0: none (5)"
    add("--others", type=cli.whole(0), default=5, metavar="N", help=what)
    what = "half chests drawn on; 0: none (50)"
    add("--halves", type=cli.whole(0), default=50, metavar="N", help=what)
    what = "also draw each window with the prompt of another part, as a control"
    add("--shuffled", action="store_true", help=what)
    add("--steps", type=cli.whole(1), default=20, metavar="N", help="for each window (20)")
    what = "4 persons from the knees, 2 from the pelvis, no halves, 8 steps; labelled as such"
    add("--quick", action="store_true", help=what)
    add("--seed", type=cli.whole(), default=0, metavar="N", help="of the noise (0)")


def reconstruction(add: Add) -> None:
    """How much of a radiograph survives the autoencoder? (arXiv:2210.04133, section 3.2)"""
    add("asked", metavar="SET", help=SETS)
    what = "weights of any layout that hold a VAE (weights)"
    add("--model", default="weights", metavar="PATH", help=what)
    add("--config", metavar="YAML", help="sizes of a CompVis file that is not SD v1.4")
    add("--size", type=cli.whole(32), metavar="PIXELS", help="of the central square (model's)")
    extractors(add)
    what = "phantoms with a thing of known size, for each size; 0: none (40)"
    add("--survival", type=cli.whole(0), default=40, metavar="N", help=what)
    add("--seed", type=cli.whole(), default=0, metavar="N", help="the posterior's noise (0)")
    add("--device", metavar="D", help="of the VAE: cpu, cuda, cuda:1 or mps (the best one here)")
    options_of_sets(add)


def regions(add: Add) -> None:
    """Does a model draw the regions and modalities of Adams et al., figures 1 and 2?"""
    add("--model", default="weights", metavar="PATH", help="weights of any layout (weights)")
    add("--phantoms", action="store_true", help='ask for a "phantom x-ray of the hand" and so on')
    add("--n", type=cli.whole(2), default=30, metavar="N", help="pictures of each prompt (30)")
    add("--quick", action="store_true", help="4 pictures of each prompt; labelled as such")
    what = "real images with region and modality, for the judge's accuracy and for distances"
    add("--real", metavar="SET", help=what)
    add(
        "--train", metavar="SET", help="what was trained on: show the nearest of each first picture"
    )
    add("--weights", default="weights", metavar="FOLDER", help="of the two judges (weights)")
    add("--steps", type=cli.whole(1), default=20, metavar="N", help="of drawing (20)")
    add("--seed", type=cli.whole(), default=0, metavar="N", help="of the noise (0)")


def study(add: Add) -> None:
    """Repeat the study of arXiv:2210.04133: every table and figure, as one page. It resumes."""
    what = "the built-in world, or Stable Diffusion v1.4 with real films and reports (laptop)"
    add("--tier", choices=["laptop", "full"], default="laptop", help=what)
    add("--quick", action="store_true", help="fewer images, shorter trainings; labelled as such")
    add("--model", metavar="PATH", help="what is adapted (the built-in base; full: sd-v1-4.ckpt)")
    add("--data", metavar="CSV", help="real films: filename, labels, split (phantoms)")
    add("--reports", metavar="CSV", help="impressions with labels (Open-I of torchxrayvision)")
    what = "text encoders to compare, as in evaluate.py text-encoders"
    add("--encoders", nargs="+", type=cli.line, metavar="ENCODER", help=what)
    add("--encoder", metavar="FOLDER", help="the BERT of textual projection (weights/bert)")
    add("--distance-by", metavar="NAME", help="of Fréchet distances (judge; full: inception)")
    add("--classified-by", metavar="NAME", help="of findings (judge; full: densenet121-res224-all)")
    add("--weights", metavar="FOLDER", help="of these two (weights)")
    add("--n", type=cli.whole(1), metavar="N", help="images of each prompt (100; quick: 20)")
    add("--guidance", type=cli.finite, metavar="S", help="of all drawings (4; full: the model's)")
    add("--sampling-steps", type=cli.whole(1), metavar="N", help="of all drawings (20)")
    add("--size", type=cli.whole(8), metavar="PIXELS", help="of a side (the model's)")
    what = "settings of every training, as for train.py: train.steps=1"
    add("--training", nargs="+", metavar="KEY=VALUE", help=what)
    add("--seed", type=cli.whole(), metavar="N", help="of all drawings (2000)")
    add("--device", metavar="D", help="cpu, cuda, cuda:1 or mps (cpu)")


def text_encoders(add: Add) -> None:
    """Which text encoder keeps clinical meaning? CheXpert@k and t-SNE (arXiv:2210.04133)."""
    what = "impressions (or whole reports) with labels; without it, Open-I of torchxrayvision"
    add("--reports", metavar="CSV", help=what)
    what = (
        "[LABEL=]ENCODER[@VECTOR]: words, built-in, random[:ENCODER], bert, open_clip:MODEL/TAG, a "
        "BERT's folder or a model's path; VECTOR is eot, mean or start of CLIP, cls, mean, pooler "
        f"or projection of a BERT, all without it ({' '.join(ENCODERS)})"
    )
    add("--encoders", nargs="+", type=cli.line, default=ENCODERS, metavar="ENCODER", help=what)
    add("--k", type=cli.whole(1), default=10, metavar="N", help="neighbours to look at (10)")
    what = "compare by cosines, so that the lengths of vectors do not count (dot products)"
    add("--cosine", action="store_true", help=what)
    what = "reports of each class at most (50)"
    add("--per-class", type=cli.whole(1), default=50, metavar="N", help=what)
    what = "which reports, resamples and random weights (0)"
    add("--seed", type=cli.whole(), default=0, metavar="N", help=what)


def word_localization(add: Add) -> None:
    """Do the cross-attention maps of a finding's words lie on it? Phantoms, beside baselines."""
    what = "of phantoms (pleural effusion, cardiomegaly, consolidation)"
    usual = ["pleural effusion", "cardiomegaly", "consolidation"]
    add("--findings", nargs="+", default=usual, metavar="FINDING", help=what)
    add("--model", default="weights", metavar="PATH", help="weights of any layout (weights)")
    add("--n", type=cli.whole(2), default=100, metavar="N", help="phantoms of each finding (100)")
    add("--cells", type=cli.whole(1), metavar="N", help="cells of a map across (the most)")
    add("--quick", action="store_true", help="8 phantoms of each; labelled as such")
    add("--seed", type=cli.whole(), default=0, metavar="N", help="of the noise (0)")


def study_making(add: Add) -> None:
    """One HTML file that works offline, blinded, and the key to it."""
    add("real", nargs="?", metavar="REAL", help=SETS)
    add("synthetic", nargs="?", metavar="SYNTHETIC", help="the same")
    what = "synthetic images alone, as arXiv:2211.00902 showed them; scored by set, too"
    add("--synthetic-only", nargs="+", metavar="SET", help=what)
    add("--pairs", metavar="ORIGINAL", help="a set whose copies by the autoencoder are scored")
    add("--n", type=cli.whole(2), default=50, metavar="N", help="images of each set (50)")
    add("--repeats", type=cli.whole(0), default=10, metavar="N", help="shown a second time (10)")
    add("--catch", type=cli.whole(0), default=4, metavar="N", help="obviously fake ones (4)")
    add("--seed", type=cli.whole(), default=0, metavar="N", help="of choice and order (0)")
    add("--size", type=cli.whole(16), metavar="N", help="pixels (the smallest image's, or 512)")
    add("--same-path", action="store_true", help="real images pass the autoencoder, too")
    add("--model", default="weights", metavar="PATH", help="whose autoencoder (weights)")


def study_scoring(add: Add) -> None:
    """Rates, d', AUC, agreement, repeats and time, with intervals."""
    add("key", nargs="?", metavar="KEY", help="key.json of the study")
    add("answers", nargs="*", metavar="ANSWERS", help="a file of each reader")
    add("--incomplete", action="store_true", help="score readers who have not finished")
    add("--counts", metavar="FILE", help="published counts in place of answers, as JSON")


def study_planning(add: Add) -> None:
    """How many images and readers for how narrow an interval?"""
    add("--rate", type=cli.finite, default=0.5, metavar="P", help="called fake (0.5)")
    add("--d-prime", type=cli.finite, default=1.0, metavar="D", help="expected (1)")
    add("--kappa", type=cli.finite, default=0.4, metavar="K", help="between readers (0.4)")
    add("--readers", type=cli.whole(2), default=3, metavar="N", help="(3)")
    add("--rate-within", type=cli.finite, default=0.1, metavar="W", help="half width (0.1)")
    add("--d-prime-within", type=cli.finite, default=0.5, metavar="W", help="half width (0.5)")
    add("--kappa-within", type=cli.finite, default=0.15, metavar="W", help="half width (0.15)")


SUBCOMMANDS = {
    "classify": classify,
    "images": images,
    "inpainting": inpainting,
    "memorization": memorization,
    "outpainting": outpainted_bodies,
    "reader-study": {"make": study_making, "score": study_scoring, "plan": study_planning},
    "reconstruction": reconstruction,
    "regions": regions,
    "study": study,
    "text-encoders": text_encoders,
    "word-maps": word_localization,
}
