"""What Chambon et al. (arXiv:2210.04133) measured, to stand beside what is measured here."""

from __future__ import annotations

import re

# Macro CheXpert@10 in percent; of CLIP, "eot" is its "pooler output", "start" its "CLS"
CLIP = {"start": 7.0, "mean": 42.8, "eot": 52.9}  # table 2
WORDS = 41.5  # table 3, "Base"
BERTS = {  # table 2, by what a label holds; SapBERT-from-PubMedBERT holds two
    "cxrbertspecialized": {"cls": 61.1, "mean": 34.5, "projection": 50.3},
    "cxrbertgeneral": {"cls": 32.4, "mean": 25.4, "pooler": 31.6},
    "sapbert": {"cls": 49.1, "mean": 48.7, "pooler": 41.0},
    "radbert": {"cls": 54.2, "mean": 32.8, "pooler": 34.7},
    "clinicalbert": {"cls": 26.3, "mean": 35.1, "pooler": 14.3},
    "pubmedbert": {"cls": 30.8, "mean": 23.6, "pooler": 20.6},
}


def bert(label: str, how: str) -> float | None:
    """The macro CheXpert@10 of the BERT that the label names, None if it names none of table 2."""
    plain = re.sub(r"[^a-z]", "", label.lower())
    figures = next((there for key, there in BERTS.items() if key in plain), {})
    return figures.get(how)
