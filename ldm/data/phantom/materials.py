"""What a body is made of, as X-rays, CT, MR and ultrasound see it."""

from typing import NamedTuple


class Material(NamedTuple):
    """Constants of one tissue; those of MR at 1.5 T."""

    mu: float  # 1/cm at about 60 keV (NIST XCOM: mu/rho times density)
    hu: float  # CT number
    t1: float  # ms
    t2: float  # ms
    protons: float  # density relative to water; what has no signal has 0
    echo: float  # backscatter amplitude relative to liver
    loss: float  # ultrasound attenuation, dB / (cm MHz)


# T1, T2: Stanisz et al. 2005 (doi:10.1002/mrm.20605) and de Bazelaire et al. 2004
# (doi:10.1148/radiol.2303021331), both at 1.5 T; T1 of the brain: Wright et al. 2008
# (doi:10.1007/s10334-008-0104-8) in vivo at 1.5 T, protons of the brain: Kwan et al. 1999
# (doi:10.1109/42.816072); T1 of free water (CSF): about 4 s, which FLAIR's usual 2.2-2.5 s null
MATERIALS = {
    "air": Material(0.0, -1000, 1, 1, 0.0, 0.0, 12.0),
    "lung": Material(0.05, -820, 1200, 40, 0.15, 0.0, 12.0),
    "fat": Material(0.187, -100, 343, 58, 0.95, 1.7, 0.6),
    "water": Material(0.206, 5, 4000, 1500, 1.0, 0.0, 0.01),
    "muscle": Material(0.215, 55, 1008, 44, 0.8, 0.5, 1.0),
    "cartilage": Material(0.22, 80, 1024, 30, 0.75, 0.3, 1.0),
    "blood": Material(0.216, 45, 1441, 290, 0.85, 0.02, 0.2),
    "liver": Material(0.217, 62, 576, 46, 0.75, 1.0, 0.5),
    "spleen": Material(0.216, 52, 1057, 79, 0.85, 0.9, 0.5),
    "kidney": Material(0.214, 36, 690, 55, 0.85, 0.45, 0.6),
    "bowel": Material(0.212, 35, 1000, 80, 0.8, 0.9, 0.8),
    "grey matter": Material(0.215, 38, 1197, 95, 0.86, 0.5, 0.6),
    "white matter": Material(0.214, 29, 646, 72, 0.77, 0.8, 0.6),
    "marrow": Material(0.2, -30, 549, 49, 0.8, 0.3, 2.0),
    "spongy bone": Material(0.3, 300, 549, 49, 0.6, 0.3, 9.0),
    "compact bone": Material(0.55, 1300, 1, 1, 0.0, 3.0, 12.0),
    "tooth": Material(0.9, 2200, 1, 1, 0.0, 3.0, 12.0),
    "stone": Material(0.6, 900, 1, 1, 0.0, 4.0, 12.0),
    "tumour": Material(0.216, 42, 1500, 150, 0.9, 0.5, 0.6),
    "oedema": Material(0.212, 22, 1150, 120, 0.85, 0.5, 0.6),
    "bleeding": Material(0.22, 70, 1000, 60, 0.85, 1.1, 0.5),
    "fetal brain": Material(0.21, 25, 2000, 200, 0.95, 0.15, 0.3),
    "fetal skull": Material(0.35, 500, 1, 1, 0.0, 3.0, 5.0),
    "choroid plexus": Material(0.21, 35, 1500, 150, 0.9, 1.6, 0.4),
    "membrane": Material(0.215, 40, 1000, 40, 0.7, 1.8, 0.6),
    "metal": Material(4.0, 3000, 1, 1, 0.0, 4.0, 12.0),
    "plaster": Material(0.35, 500, 1, 1, 0.0, 2.0, 12.0),
}
