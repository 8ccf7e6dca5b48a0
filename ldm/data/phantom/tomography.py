"""Slices of a scene as CT and MR show them. A slice lies at depth 0 of its view."""

from collections.abc import Mapping, Sequence

import numpy as np

from ldm.data.phantom.body import F32, Array
from ldm.data.phantom.findings import Rng
from ldm.data.phantom.materials import MATERIALS, Material
from ldm.data.phantom.rays import Box, View
from ldm.data.phantom.scene import Scene

Shares = dict[str, tuple[Box, Array]]  # of each named part: the share of the slice that it fills
# level, width and usual noise in HU; "narrow": as chest slices of 8 bit on the web look
WINDOWS = {"lung": (-600, 1500, 30), "soft tissue": (40, 400, 12), "bone": (400, 1800, 30),
           "brain": (35, 80, 4), "narrow": (90, 200, 40)}  # fmt: skip
# TR, TE, TI in ms (0: no inversion), contrast agent in the blood in mmol / l
SEQUENCES = {"T1": (500, 14, 0, 0), "T1 contrast": (500, 14, 0, 0.7), "T2": (4000, 90, 0, 0),
             "FLAIR": (9000, 100, 2350, 0)}  # fmt: skip
RELAXIVITY = 4.1e-3  # l / (mmol ms): gadopentetate in plasma at 1.5 T (Rohrer et al. 2005)
# contrast agent: share of the blood's concentration, and HU in the portal venous phase, by eye
UPTAKE = dict.fromkeys(MATERIALS, (0.0, 0)) | {
    "blood": (1.0, 130), "tumour": (1.0, 35), "liver": (0.5, 45), "spleen": (0.7, 65),
    "kidney": (0.9, 130), "bowel": (0.3, 25), "muscle": (0.15, 8)}  # fmt: skip
CUTOFF = 6.0  # cycles / cm, at which a soft kernel of CT has fallen to 0


def painted(
    scene: Scene, view: View, thickness: float, values: Mapping[str, Sequence[float]]
) -> tuple[Array, Shares]:
    """[C, H, W] values of materials, mixed by their share of each voxel, and the named shares.

    value = value (1 - share) + values[material] share, part after part, from air on. Pixels wider
    than 0.13 cm are sampled twice a side, so that edges are no stairs.
    """
    fine = 1 + (view.pixel > 0.13)
    grid = View(view.middle, view.axes, view.size * view.pixel, fine * view.size)
    table = {name: np.asarray(value, F32)[:, None, None] for name, value in values.items()}
    total, named = np.tile(table["air"], (1, grid.size, grid.size)), dict[str, Array]()
    for part, box, share in scene.amounts(grid, thickness):
        area = total[(slice(None), *box)]
        area += (table[part.material] - area) * share
        if part.name:  # which other parts may bear, too
            whole = named.setdefault(part.name, np.zeros(total.shape[1:], F32))
            whole[box] = np.maximum(whole[box], share)
    if fine == 2:
        total, named = halved(total), {name: halved(share) for name, share in named.items()}
    picture = slice(0, view.size), slice(0, view.size)
    return total, {name: (picture, share) for name, share in named.items()}


def halved(fine: Array) -> Array:
    """[..., 2H, 2W] -> [..., H, W] means."""
    rows = fine[..., ::2, :] + fine[..., 1::2, :]
    return np.asarray((rows[..., ::2] + rows[..., 1::2]) * F32(0.25), F32)


def grain(view: View, sigma: float, rng: Rng) -> Array:
    """[H, W] noise of filtered back projection, of the deviation sigma where pixels resolve f_c.

    P(f) ~ |filter|^2 / f = f cos^4(pi f / (2 f_c)): a ramp under a Hann window of cutoff f_c
    (Riederer, Pelc and Chesler 1978, doi:10.1088/0031-9155/23/3/008); larger pixels lose high f
    """
    f = np.hypot(np.fft.fftfreq(view.size)[:, None], np.fft.rfftfreq(view.size)) / view.pixel
    power = f * np.cos(0.5 * np.pi * np.minimum(f / CUTOFF, 1)) ** 4
    whole = 2 * np.pi * CUTOFF**3 * (1 / 8 - 15 / (16 * np.pi**2))  # its integral over the plane
    white = np.fft.rfft2(rng.standard_normal((view.size,) * 2))
    shaped = np.fft.irfft2(white * np.sqrt(power / whole) / view.pixel, s=(view.size,) * 2)
    return (sigma * shaped).astype(F32)


def ct(
    scene: Scene, view: View, rng: Rng, window: str = "soft tissue", thickness_cm: float = 0.5,
    contrast: float = 0.0, sigma: float | None = None,
) -> tuple[Array, Shares]:  # fmt: skip
    """[H, W] grey in [0, 1] of a CT slice, and {name: (box, share of the slice)} of named parts.

    contrast: 1 = portal venous phase;  sigma: noise in HU of a slice of 0.5 cm, None draws it
    """
    level, width, usual = _known(WINDOWS, window, "window")
    hu = {k: [m.hu + contrast * UPTAKE[k][1]] for k, m in MATERIALS.items()}
    (slab,), named = painted(scene, view, thickness_cm, hu)
    drawn, round_field = usual * np.exp(rng.normal(0, 0.3)), rng.random() < 0.5
    if abs(view.axes[2, 1]) > 0.8 and view.size * view.pixel > 30:  # across a trunk on its back
        slab = np.maximum(slab, _couch(view, slab > -400, rng))
    slab = view.blur(slab, 0.05)  # focal spot, detector, kernel
    deviation = (drawn if sigma is None else sigma) * np.sqrt(0.5 / thickness_cm)
    slab = slab + grain(view, float(deviation), rng.spawn(1)[0])
    if round_field:  # of the scanner: nothing is measured outside
        slab[np.hypot(view.u, view.v) > 0.5 * view.size * view.pixel] = -2000
    return np.clip((slab - F32(level - width / 2)) / F32(width), 0, 1), named


def _couch(view: View, body: Array, rng: Rng) -> Array:
    """[H, W] HU of the shell of a couch: a trough under the back and what carries it; by eye."""
    half, sag, deep = rng.uniform([18, 3, 3], [25, 6, 6])
    x = np.abs(view.u[0] - rng.normal(0, 1.5)) / half
    edge = np.where(body.any(0), view.at[view.size - 1 - body[::-1].argmax(0)], -np.inf)
    top = float((edge + sag * x**2)[x < 0.9].max()) + rng.uniform(0.3, 2.0)
    # a crescent, which ends where the trough does, or a tray with slanted sides
    crescent, tray = deep - (sag + deep) * x**2, 2 + deep * np.minimum(1, 3.6 - 4 * x)
    lower = tray if rng.random() < 0.4 else crescent
    shell = np.zeros((view.size, view.size))
    for curve in (-sag * x**2, lower):
        far = np.abs(view.v - top - curve) / np.hypot(1, np.gradient(curve, view.pixel))
        shell = np.maximum(shell, np.clip((0.15 - far) / view.pixel + 0.5, 0, 1))
    return np.where((x < 1) & np.isfinite(top), 1500 * shell - 1000, -1000).astype(F32)


def signal(tissue: Material, tr: float, te: float, ti: float = 0, agent: float = 0) -> float:
    """Signal of a spin echo sequence, relative to that of fully relaxed water; times in ms.

    S = M0 (1 - exp(-TR/T1)) exp(-TE/T2)                      without inversion, TE << TR
    S = M0 (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2)      with it; negative before the null
    (Haacke et al. 1999, Magnetic Resonance Imaging); C mmol / l of agent add r1 C to 1/T1
    """
    rest, turned = np.exp(-(1 / tissue.t1 + RELAXIVITY * agent) * np.array([tr, ti]))
    along = 1 - rest - (2 * (turned - rest) if ti else 0)
    return float(tissue.protons * along * np.exp(-te / tissue.t2))


def mr(
    scene: Scene, view: View, rng: Rng, sequence: str = "T1", thickness_cm: float = 0.5
) -> tuple[Array, Shares]:
    """[H, W] grey in [0, 1] of an MR slice, and {name: (box, share)}; sequence: of `SEQUENCES`."""
    tr, te, ti, agent = _known(SEQUENCES, sequence, "sequence")
    values = {k: [signal(m, tr, te, ti, agent * UPTAKE[k][0])] for k, m in MATERIALS.items()}
    (clean,), named = painted(scene, view, thickness_cm, values)
    # coils around the body hear its surface best
    near = 1 + (view.u**2 + view.v**2) * F32(rng.uniform(0.8, 3.6) / (view.size * view.pixel) ** 2)
    near = near * np.exp(F32(0.12) * view.texture(rng.spawn(1)[0], 14.0))
    clean = np.abs(view.blur(clean * near, 0.05))
    full = float(np.quantile(clean, 0.995)) * rng.uniform(1.1, 1.5) or 1.0
    return np.minimum(rician(clean * F32(1 / full), 1 / rng.uniform(30, 80), rng), 1), named


def rician(clean: Array, sigma: float, rng: Rng) -> Array:
    """sqrt((S + n1)^2 + n2^2)    (Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618)"""
    n1, n2 = F32(sigma) * rng.standard_normal((2, *clean.shape)).astype(F32)
    return np.hypot(clean + n1, n2)


def _known(table: Mapping[str, tuple[float, ...]], name: str, what: str) -> tuple[float, ...]:
    if name not in table:
        raise ValueError(f"no such {what}: {name!r}; there are {', '.join(table)}")
    return table[name]
