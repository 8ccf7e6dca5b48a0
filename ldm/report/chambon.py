"""What Chambon et al. (arXiv:2210.04133) measured, to stand beside what is measured here.

Copied from the tables, by their numbers; None is a cell that the paper leaves empty.
"""

import re
from typing import NamedTuple

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


class PublishedCopies(NamedTuple):
    """A finding of tables 1 and 6: of the original films, and of their reconstructions."""

    prevalence: float
    auc: tuple[float, float]
    accuracy: tuple[float, float]
    f1: tuple[float, float]


MIMIC = {  # table 1
    "Atelectasis": PublishedCopies(0.289, (0.805, 0.807), (0.741, 0.731), (0.623, 0.624)),
    "Cardiomegaly": PublishedCopies(0.273, (0.810, 0.812), (0.741, 0.742), (0.616, 0.609)),
    "Consolidation": PublishedCopies(0.119, (0.854, 0.858), (0.815, 0.818), (0.496, 0.494)),
    "Edema": PublishedCopies(0.172, (0.858, 0.862), (0.854, 0.852), (0.614, 0.591)),
    "Enl. Mediastinum": PublishedCopies(0.144, (0.790, 0.793), (0.757, 0.757), (0.454, 0.451)),
    "Fracture": PublishedCopies(0.049, (0.651, 0.653), (0.751, 0.757), (0.132, 0.141)),
    "Lung Lesion": PublishedCopies(0.077, (0.766, 0.728), (0.915, 0.915), (0.023, 0.000)),
    "Lung Opacity": PublishedCopies(0.297, (0.814, 0.814), (0.781, 0.772), (0.604, 0.594)),
    "Pleural Effusion": PublishedCopies(0.213, (0.877, 0.881), (0.849, 0.849), (0.664, 0.662)),
    "Pleural Other": PublishedCopies(0.046, (0.780, 0.778), (0.677, 0.665), (0.161, 0.177)),
    "Pneumonia": PublishedCopies(0.226, (0.753, 0.739), (0.692, 0.710), (0.488, 0.477)),
    "Pneumothorax": PublishedCopies(0.030, (0.811, 0.791), (0.814, 0.812), (0.162, 0.153)),
}
CHEXPERT = {  # table 6
    "Atelectasis": PublishedCopies(0.455, (0.693, 0.690), (0.532, 0.550), (0.653, 0.661)),
    "Cardiomegaly": PublishedCopies(0.211, (0.760, 0.756), (0.410, 0.422), (0.406, 0.407)),
    "Consolidation": PublishedCopies(0.277, (0.731, 0.730), (0.456, 0.477), (0.493, 0.499)),
    "Edema": PublishedCopies(0.335, (0.766, 0.766), (0.467, 0.486), (0.549, 0.555)),
    "Enl. Mediastinum": PublishedCopies(0.187, (0.601, 0.588), (0.289, 0.305), (0.325, 0.326)),
    "Fracture": PublishedCopies(0.087, (0.568, 0.536), (0.102, 0.119), (0.158, 0.159)),
    "Lung Lesion": PublishedCopies(0.086, (0.614, 0.587), (0.232, 0.247), (0.172, 0.168)),
    "Lung Opacity": PublishedCopies(0.554, (0.730, 0.723), (0.648, 0.661), (0.748, 0.751)),
    "Pleural Effusion": PublishedCopies(0.420, (0.818, 0.813), (0.597, 0.607), (0.663, 0.664)),
    "Pleural Other": PublishedCopies(0.057, (0.550, 0.556), (0.724, 0.687), (0.110, 0.103)),
    "Pneumonia": PublishedCopies(0.203, (0.668, 0.663), (0.371, 0.370), (0.375, 0.374)),
    "Pneumothorax": PublishedCopies(0.092, (0.674, 0.658), (0.180, 0.209), (0.178, 0.179)),
}
FINDINGS = {  # the words of captions for the rows of tables 1 and 6; a nodule is a lung lesion
    **{"pulmonary edema": "Edema", "edema": "Edema", "lung nodule": "Lung Lesion"},
    **{"enlarged cardiomediastinum": "Enl. Mediastinum", "pleural thickening": "Pleural Other"},
    **{name.lower(): name for name in MIMIC},
}
# section 3.2: mean and standard deviation, MIMIC-CXR and CheXpert
QUALITY = {
    "RMSE": ("31.8 ± 6.5", "47.8 ± 7.4"),
    "PSNR": ("35.1 ± 1.6", "31.5 ± 1.4"),
    "SSIM": ("0.93 ± 0.02", "0.85 ± 0.03"),
    "cosine": ("0.98 ± 0.02", "0.97 ± 0.02"),
}
# table 3, class by class, of bag-of-words and CLIP's tower; CheXpert@10 in percent
CLASSES = {
    "Atelectasis": (33.4, 52.8),
    "Cardiomegaly": (21.6, 47.6),
    "Consolidation": (36.0, 38.4),
    "Edema": (62.8, 72.0),
    "Enlarged Cardiomediastinum": (38.0, 42.6),
    "Fracture": (49.0, 74.2),
    "Lung Lesion": (30.2, 33.8),
    "Lung Opacity": (20.4, 25.6),
    "No Finding": (78.4, 80.6),
    "Pleural Effusion": (46.4, 68.0),
    "Pleural Other": (21.6, 34.6),
    "Pneumonia": (53.8, 54.0),
    "Pneumothorax": (56.4, 72.0),
    "Support Devices": (32.6, 44.8),
}
# table 4: FID of the plain prompt, of "with a visible pleural effusion", of "in the style of".
# Its row of style and radiology has 0.084 in the third column, that of object and radiology 0.092.
FID: dict[str, tuple[float | None, float | None, float | None]] = {
    "base": (0.097, 0.151, None),
    "projection_none": (0.124, 0.144, None),
    "projection_document": (0.266, 0.104, None),
    "projection_token": (0.201, 0.257, None),
    "object_radiology": (0.108, 0.058, 0.092),
    "object_lung": (0.135, 0.135, None),
    "style_radiology": (0.101, 0.057, 0.084),
    "style_lung": (0.130, 0.083, None),
    "unet_no_findings": (0.057, 0.043, None),
    "unet": (0.034, 0.041, None),
    "unet_prior": (0.170, 0.086, None),
}
# table 5: AUC, accuracy, F1, precision, recall. It does not say which word is its "Textual
# Inversion", and "U-Net, no prior" is taken for the row on no findings and abnormality.
VERDICTS = {
    "base": (0.514, 0.500, 0.167, 0.500, 0.100),
    "projection_document": (0.136, 0.480, 0.000, 0.000, 0.000),
    "projection_token": (0.582, 0.540, 0.489, 0.550, 0.440),
    "object_lung": (0.742, 0.610, 0.381, 0.923, 0.240),
    "unet": (0.459, 0.500, 0.000, 0.000, 0.000),
    "unet_prior": (0.984, 0.950, 0.947, 1.000, 0.900),
}
