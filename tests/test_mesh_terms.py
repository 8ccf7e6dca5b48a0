"""MeSH terms stand for classes by the stated rules: tricky ones, negated ones, uncertain ones."""

import pytest

from ldm.data.mesh_terms import CLASSES, TERMS, classes, narrowest

TRICKY = [
    (["normal"], {"No Finding"}),
    (["Normal "], {"No Finding"}),
    (["Opacity/lung/base/left/mild"], {"Lung Opacity"}),
    (["opacity / Lung"], {"Lung Opacity"}),
    (["Opacity/ribs/anterior"], set()),
    (["Nodule/lung/upper lobe/right"], {"Lung Lesion"}),
    (["Fractures, Bone/ribs/right/healed"], {"Fracture"}),
    (["Cardiac Shadow/enlarged/borderline"], {"Cardiomegaly"}),
    (["Thickening/bronchi"], set()),
    (["Thickening/pleura/apex", "Pleural Effusion/left"], {"Pleural Other", "Pleural Effusion"}),
    (["Hydropneumothorax/right"], {"Pneumothorax", "Pleural Effusion"}),
    # not a class, and not "No Finding" either
    (["Aorta/tortuous"], set()),
    (["No Indexing"], set()),
    ([], set()),
    # a part of a word or of a heading is no term
    (["Pericardial Effusion"], set()),
    (["Pneumonia prophylaxis"], set()),
    (["Nodule/lungfish"], set()),
    # negation
    (["no evidence of pneumonia"], set()),
    (["No pneumothorax", "normal"], {"No Finding"}),
    (["without Pleural Effusion", "Cardiomegaly"], {"Cardiomegaly"}),
    (["Pneumonia/absent"], set()),
    (["Cardiac Shadow/normal"], set()),
    (["Normal heart size", "normal"], {"No Finding"}),
    # uncertainty counts as positive
    (["possible pneumonia"], {"Pneumonia"}),
    (["Probable Pulmonary Edema/mild"], {"Edema"}),
    (["? Pneumothorax"], {"Pneumothorax"}),
    (["pneumonia cannot be excluded"], {"Pneumonia"}),
    (["Cardiomegaly/borderline"], {"Cardiomegaly"}),
    # a finding, of whatever kind, is not "normal"
    (["normal", "Cardiomegaly"], {"Cardiomegaly"}),
    (["normal", "Aorta/tortuous"], set()),
]


@pytest.mark.parametrize(("terms", "expected"), TRICKY, ids=[str(t[0]) for t in TRICKY])
def test_terms_stand_for_classes_by_the_rule(terms: list[str], expected: set[str]) -> None:
    """Whole headings and qualifiers; negated terms for nothing, uncertain ones for their class."""
    assert classes(terms) == expected


def test_every_class_of_the_paper_has_a_term() -> None:
    """The 14 classes are in the order of the paper's table 3, and each can be had."""
    assert len(CLASSES) == 14
    assert list(CLASSES) == sorted(CLASSES)
    for name, patterns in TERMS.items():
        for pattern in patterns:
            assert name in classes([pattern])


def test_the_narrowest_class_counts() -> None:
    """An opacity that is pneumonia is pneumonia; two findings side by side stay two."""
    assert narrowest(frozenset({"Lung Opacity", "Consolidation", "Pneumonia"})) == {"Pneumonia"}
    assert narrowest(frozenset({"Lung Opacity", "Edema", "Fracture"})) == {"Edema", "Fracture"}
    assert narrowest(frozenset({"Lung Opacity"})) == {"Lung Opacity"}
