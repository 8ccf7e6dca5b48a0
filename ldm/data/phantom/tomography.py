"""Slices of a scene as CT and MR show them. A slice lies at depth 0 of its view."""

from collections.abc import Mapping, Sequence

import numpy as np

from ldm.data.phantom.body import F32, Array
from ldm.data.phantom.findings import Rng
from ldm.data.phantom.materials import MATERIALS, Material
from ldm.data.phantom.scene import Scene
from ldm.data.phantom.solids import Box, View

Shares = dict[str, tuple[Box, Array]]
# level and width in HU; "narrow" is that of the chest slices of 8 bit that circulate on the web
WINDOWS = {
    "lung": (-600, 1500),
    "soft tissue": (40, 400),
    "bone": (400, 1800),
    "brain": (35, 80),
    "narrow": (90, 200),
}
# TR, TE, TI in ms (0: no inversion), concentration of contrast agent in mmol / l
SEQUENCES = {
    "T1": (500, 14, 0, 0),
    "T1 contrast": (500, 14, 0, 0.7),
    "T2": (4000, 90, 0, 0),
    "FLAIR": (9000, 100, 2350, 0),
}
RELAXIVITY = 4.1e-3  # l / (mmol ms), gadopentetate in plasma at 1.5 T: Rohrer et al. 2005
# where an agent goes: times its concentration in blood; HU in the portal venous phase (near
# Bae 2010, doi:10.1148/radiol.10090908). The brain keeps it out
UPTAKE = {"blood": (1.0, 130), "tumour": (1.0, 35), "liver": (0.5, 45), "spleen": (0.7, 65),
          "kidney": (0.9, 130), "bowel": (0.3, 25), "muscle": (0.15, 8)}  # fmt: skip
CUTOFF = 6.0  # cycles / cm at which a body kernel of CT has fallen to 0


def painted(
    scene: Scene, view: View, thickness: float, values: Mapping[str, Sequence[float]]
) -> tuple[Array, Shares]:
    """[C, H, W] values of materials mixed by their share of each voxel, and the named shares.

    value = value (1 - share) + values[material] share, part after part, from air on: partial
    volume. Two samples a side per pixel, so that edges are no stairs.
    """
    fine = View(view.middle, view.axes, view.size * view.pixel, 2 * view.size)
    table = {name: np.asarray(value, F32)[:, None, None] for name, value in values.items()}
    total = np.broadcast_to(table["air"], (len(table["air"]), fine.size, fine.size)).copy()
    named: Shares = {}
    for part, (rows, columns), share in scene.amounts(fine, thickness):
        area = total[:, rows, columns]
        area += (table[part.material] - area) * share
        if part.name:
            box = tuple(slice(s.start // 2, -(-s.stop // 2)) for s in (rows, columns))
            pad = [(s.start % 2, s.stop % 2) for s in (rows, columns)]
            named[part.name] = ((box[0], box[1]), halved(np.pad(share, pad)))
    return halved(total), named


def halved(fine: Array) -> Array:
    """[..., 2H, 2W] -> [..., H, W] means."""
    rows = fine[..., ::2, :] + fine[..., 1::2, :]
    return np.asarray((rows[..., ::2] + rows[..., 1::2]) * F32(0.25), F32)


def hounsfield(
    scene: Scene, view: View, thickness_cm: float, contrast: float = 0.0
) -> tuple[Array, Shares]:
    """[H, W] CT numbers without noise, and the named shares; contrast: 1 = portal venous phase."""
    hu = {k: [m.hu + contrast * UPTAKE.get(k, (0, 0))[1]] for k, m in MATERIALS.items()}
    total, named = painted(scene, view, thickness_cm, hu)
    return total[0], named


def grain(view: View, sigma: float, rng: Rng) -> Array:
    """[H, W] noise of filtered back projection: its power grows with frequency, then rolls off.

    P(f) ~ f cos^4(pi f / 2 f_c)    (Riederer, Pelc and Chesler 1978, doi:10.1088/0031-9155/23/3/008:
    |filter|^2 / f, with a ramp under a Hann window of cutoff f_c)
    sigma: its standard deviation with pixels that resolve f_c; larger ones hold the lower f alone
    """
    f = np.hypot(np.fft.fftfreq(view.size)[:, None], np.fft.rfftfreq(view.size)) / view.pixel

    def power(f: Array) -> Array:
        return np.asarray(f * np.cos(0.5 * np.pi * np.minimum(f / CUTOFF, 1)) ** 4)

    radii = (np.arange(1000) + 0.5) * CUTOFF / 1000
    whole = float((2 * np.pi * radii * power(radii)).sum()) * CUTOFF / 1000  # 2D integral of P
    white = np.fft.rfft2(rng.standard_normal((view.size, view.size)))
    shaped = np.fft.irfft2(white * np.sqrt(power(f) / whole) / view.pixel, s=(view.size,) * 2)
    return (sigma * shaped).astype(F32)


def ct(
    scene: Scene,
    view: View,
    rng: Rng,
    window: str = "soft tissue",
    thickness_cm: float = 0.5,
    contrast: float = 0.0,
    sigma: float | None = None,
) -> tuple[Array, Shares]:
    """[H, W] grey in [0, 1] of a CT slice, and {name: (box, share of the slice)} of named parts.

    window: a name of `WINDOWS`;  contrast: as `hounsfield`
    sigma: noise in HU at a thickness of 0.5 cm (it goes with 1 / sqrt(thickness)); None draws it
    """
    level, width = _known(WINDOWS, window, "window")
    hu, named = hounsfield(scene, view, thickness_cm, contrast)
    drawn, dose, circle = np.exp(rng.normal(2.6, 0.4)), rng.spawn(1)[0], rng.random() < 0.5
    if abs(view.axes[2, 1]) > 0.8 and scene.parts:  # across a body that lies on a table
        hu = np.maximum(hu, _table(view, hu, rng))
    sharp = view.blur(hu, 0.05)  # focal spot, detector and kernel
    deviation = (drawn if sigma is None else sigma) * np.sqrt(0.5 / thickness_cm)
    noisy = sharp + grain(view, float(deviation), dose)
    if circle:  # nothing is measured outside the scanner's field of view
        noisy[np.hypot(view.u, view.v) > 0.5 * view.size * view.pixel] = -2000
    return np.clip((noisy - (level - width / 2)) / F32(width), 0, 1).astype(F32), named


def _table(view: View, hu: Array, rng: Rng) -> Array:
    """[H, W] HU of the couch's shell below the body: a trough and what carries it, by eye."""
    half, sag, deep = rng.uniform(19, 25), rng.uniform(3, 6), rng.uniform(3, 6)
    tray, gap = rng.random() < 0.4, rng.uniform(0.3, 2.0)
    x = view.u[0] - F32(rng.normal(0, 1.5))
    upper = -sag * np.minimum(np.abs(x) / half, 1) ** 2  # 0 in the middle, higher at the sides
    body = (hu > -400) & (np.abs(view.u) < 16)
    lowest = np.where(body.any(0), view.at[view.size - 1 - body[::-1].argmax(0)], -np.inf)
    back = float((lowest - upper).max())
    if not np.isfinite(back):
        return np.full_like(hu, -1000)
    upper = upper + back + gap
    lower = deep - (sag + deep) * (x / half) ** 2  # a crescent that ends where the trough does
    if tray:
        lower = 2 + deep - np.maximum(np.abs(x) - 0.6 * half, 0) * (deep + sag) / (0.4 * half)
    shell = np.zeros_like(hu)
    for curve in (upper, lower + back + gap):
        far = np.abs(view.v - curve.astype(F32)) / np.hypot(1, np.gradient(curve, view.pixel))
        shell = np.maximum(shell, np.clip((0.11 - far) / F32(view.pixel) + F32(0.5), 0, 1))
    return np.where(np.abs(x) <= half, F32(1400) * shell - 1000, -1000).astype(F32)


def signal(
    tissue: Material, repetition: float, echo: float, inversion: float = 0, agent: float = 0
) -> float:
    """Signal of a spin echo sequence, relative to that of fully relaxed water; all times in ms.

    S = M0 (1 - exp(-TR/T1)) exp(-TE/T2)                        without inversion (TE << TR)
    S = M0 (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2)        with it; below 0 before the null
    1/T1 -> 1/T1 + r1 agent                   (Haacke et al. 1999, Magnetic Resonance Imaging, ch. 8)
    """
    rate = 1 / tissue.t1 + RELAXIVITY * agent
    along = 1 - (2 * np.exp(-inversion * rate) if inversion else 0)
    along += np.exp(-repetition * rate) * (1 if inversion else -1)
    return float(tissue.protons * along * np.exp(-echo / tissue.t2))


def mr(
    scene: Scene, view: View, rng: Rng, sequence: str = "T1", thickness_cm: float = 0.5
) -> tuple[Array, Shares]:
    """[H, W] grey in [0, 1] of an MR slice, and {name: (box, share)}; sequence: of `SEQUENCES`.

    |S + n1 + i n2|, the magnitude's Rician noise (Gudbjartsson and Patz 1995,
    doi:10.1002/mrm.1910340618), times the coils' smooth sensitivity
    """
    repetition, echo, inversion, agent = _known(SEQUENCES, sequence, "sequence")
    inversion *= rng.uniform(0.95, 1.05)
    values = {
        k: [signal(m, repetition, echo, inversion, agent * UPTAKE.get(k, (0, 0))[0])]
        for k, m in MATERIALS.items()
    }
    total, named = painted(scene, view, thickness_cm, values)
    near = rng.uniform(0.2, 0.9)  # coils around the body hear its surface best
    ripple = rng.spawn(1)[0]
    bias = np.exp(F32(0.12) * view.texture(ripple, 14.0)) * (
        1 + near * (view.u**2 + view.v**2) / F32(0.25 * (view.size * view.pixel) ** 2)
    )
    clean = np.abs(view.blur(total[0] * bias.astype(F32), 0.05))
    full = float(np.quantile(clean, 0.995)) or 1.0
    noisy = magnitude(clean / F32(full), 1 / rng.uniform(25, 70), rng)
    return np.clip(noisy / F32(rng.uniform(1.0, 1.3)), 0, 1), named


def magnitude(clean: Array, sigma: float, rng: Rng) -> Array:
    """sqrt((S + n1)^2 + n2^2) of real and imaginary noise, each of deviation sigma."""
    n1, n2 = sigma * rng.standard_normal((2, *clean.shape)).astype(F32)
    return np.hypot(clean + n1, n2).astype(F32)


def _known(table: Mapping[str, tuple[float, ...]], name: str, what: str) -> tuple[float, ...]:
    if name not in table:
        raise ValueError(f"no such {what}: {name!r}; there are {', '.join(table)}")
    return table[name]
