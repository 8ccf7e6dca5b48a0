"""Procedural chest radiographs with known truth.

findings         patients and their findings, drawn from a seed
body             lengths and shapes of one body, in cm
skeleton         ribs, clavicles, scapulae, vertebrae
vessels          the vessels of the lungs
lesions          findings that change the lungs
medical_devices  tubes, lines, wires, pacemakers
probes           objects of known size, to see what a network keeps
detector         pixels in cm of the body, and matter summed along the rays
exposure         scatter, noise, film curve, borders, markers
renderer         all of it: images, masks and truth
captions         captions of phantoms and of labelled files
"""

from ldm.data.phantom.captions import caption, caption_from_labels
from ldm.data.phantom.findings import (
    BODY_FINDINGS,
    FINDINGS,
    LETTERS,
    PROBES,
    Finding,
    Phantom,
    Probe,
    sample_phantoms,
)
from ldm.data.phantom.renderer import Rendered, render

# names the pixels that a seed gives, in caches and in checkpoints; any new value will do once
# tests/test_phantom.py says that they changed
VERSION = "82fddccd4766"
BODY_VERSION = "1"  # the same of all but frontal chest films: tests/test_imaging.py
