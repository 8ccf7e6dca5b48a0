"""The figures of Chambon et al. (arXiv:2210.04133), to stand beside what is measured here.

chambon.json is copied from the tables, by their numbers; null is a cell that the paper leaves
empty.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

PUBLISHED: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))


class PublishedCopies(NamedTuple):
    """A finding of tables 1 and 6: [of the original films, of their reconstructions]."""

    prevalence: float
    auc: list[float]
    accuracy: list[float]
    f1: list[float]


# mean and standard deviation, MIMIC-CXR and CheXpert
QUALITY: dict[str, list[str]] = PUBLISHED["section 3.2"]
MIMIC, CHEXPERT = (
    {finding: PublishedCopies(*row) for finding, row in PUBLISHED[table].items()}
    for table in ("table 1", "table 6")
)
FINDINGS = {  # the words of captions for the rows of tables 1 and 6; a nodule is a lung lesion
    **{"pulmonary edema": "Edema", "edema": "Edema", "lung nodule": "Lung Lesion"},
    **{"enlarged cardiomediastinum": "Enl. Mediastinum", "pleural thickening": "Pleural Other"},
    **{name.lower(): name for name in MIMIC},
}
# Macro CheXpert@10 in percent; of CLIP, "eot" is its "pooler output", "start" its "CLS"
CLIP: dict[str, float] = PUBLISHED["table 2, CLIP"]
WORDS: float = PUBLISHED["table 3, macro of Base"]
# by what a label holds; SapBERT-from-PubMedBERT holds two
BERTS: dict[str, dict[str, float]] = PUBLISHED["table 2, BERTs"]
# class by class, of bag-of-words and CLIP's tower; CheXpert@10 in percent
CLASSES: dict[str, list[float]] = PUBLISHED["table 3"]
# FID of the plain prompt, of "with a visible pleural effusion", of "in the style of". Its row of
# style and radiology has 0.084 in the third column, that of object and radiology 0.092.
FID: dict[str, list[float | None]] = PUBLISHED["table 4"]
# AUC, accuracy, F1, precision, recall. It does not say which word is its "Textual Inversion", and
# "U-Net, no prior" is taken for the row on no findings and abnormality.
VERDICTS: dict[str, list[float]] = PUBLISHED["table 5"]


def bert(label: str, how: str) -> float | None:
    """The macro CheXpert@10 of the BERT that the label names, None if it names none of table 2."""
    plain = re.sub(r"[^a-z]", "", label.lower())
    figures = next((there for key, there in BERTS.items() if key in plain), {})
    return figures.get(how)
