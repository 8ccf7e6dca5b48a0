"""The work of evaluate.py: what it measures, and how the results are shown.

options                  the options of all subcommands, read before anything heavy is imported
page                     a report as HTML (page.html), Markdown, text and JSON; words of passages.md
plots                    an empty figure and its PNG; histograms, ROC curves, embeddings by t-SNE
image_sheets             grey images beside each other
reconstruction           evaluate.py reconstruction
roundtrip                images through the autoencoder, beside the originals
reconstruction_verdicts  a classifier's verdicts of reconstructions, beside those of originals
probe_survival           the survival of things of known size in the autoencoder
images                   evaluate.py images
set_distances            distances between two sets of images, and the variety of one
classify                 evaluate.py classify
finding_calls            the findings called in a set, beside its labels or prompts
train_on_synthetic       classifiers trained on synthetic and on real images, tried on real ones
anatomy_survey           the anatomy of sets of images, by estimates that are tried on phantoms
memorization             evaluate.py memorization
copy_search              a search for copies of training images, in three spaces
inpainting               evaluate.py inpainting
inpainting_trials        inpainted boxes, beside the originals and cheaper fills
painted_findings         findings painted into healthy phantoms by their words
outpainting_trials       outpainted halves and inverted phantoms, whose truth is known
outpainted_bodies        evaluate.py outpainting
text_encoders            evaluate.py text-encoders
report_retrieval         CheXpert@k of text encoders, beside the paper's
named_encoders           text encoders by name, and their ways to make one vector of a text
chambon                  the figures of Chambon et al. (arXiv:2210.04133), from chambon.json
word_localization        evaluate.py word-maps
regions                  evaluate.py regions
region_calls             what judges name in pictures of an asked region, and its bones
adapted_models           images of an adapted model, and figures of them
readers/                 evaluate.py reader-study
study/                   evaluate.py study

The module of a subcommand has `run(options) -> Report`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Report(NamedTuple):
    """text: for the terminal;  values: one JSON object;  files: {name: content} for --out"""

    text: str
    values: dict[str, Any]
    files: Mapping[str, bytes]
