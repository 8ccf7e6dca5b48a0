"""Made-up persons of known truth: chest films, and films, CT, MR and ultrasound of any region.

findings         patients and their findings, drawn from a seed
selection        which pictures a set holds: "region=hand+knee,modality=xray"
captions         captions of phantoms and of labelled files
renderer         any phantoms: images, masks and truth; the frontal chest film

  The frontal chest film, from sums along the rays
body             lengths and shapes of one chest, in cm
skeleton         ribs, clavicles, scapulae, vertebrae
vessels          the vessels of the lungs, the borders of heart and mediastinum
lesions          findings that change the lungs
medical_devices  tubes, lines, wires, pacemakers
probes           objects of known size, to see what a network keeps
detector         pixels in cm of the body, and matter summed along the rays
exposure         scatter, noise, film curve, borders, markers

  All other pictures, from solids in 3D
solids           convex solids
rays             where the rays of a view enter and leave them
scene            body parts of one material each, in the order in which they replace each other
materials        what they are made of
person           lengths of a whole body and the frames of its limbs
anatomy          a person's parts by section, from the next four files
axial_skeleton   bones and flesh of head and trunk
limbs            bones and flesh of arms and legs
thorax, organs   lungs, heart and their findings; brain, belly, pelvis
injuries         fractures, stones, tumours, bleeding, plaster, plates
views            fields of view by name (regions.json), from where
radiograph       films;  tomography  CT and MR;  ultrasound, fetus  ultrasound
imaging          a picture of these, its masks and truth
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
