"""The anatomy of a head as a function of place: one tissue for every point, painted onto a label grid.

Shapes are ellipsoids and surfaces of an average adult, in mm from the middle between the commissures: x to the right,
y to the front, z up. The cortex folds where the zero surfaces of a random field with a wavelength of two gyri meet it;
half of the field is common to all heads, so that sulci lie at similar places.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ukb_infer.compiling import compiled
from ukb_infer.phantom.heads.population import INFARCT, LACUNE, MENINGIOMA, POLYMICROGYRIA, Head


class Tissue(IntEnum):
    """Labels of the grid."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4
    MARROW = 5
    EYE = 6
    DURA = 7
    CSF = 8
    CORTEX = 9
    WHITE = 10
    STRIATUM = 11
    PALLIDUM = 12
    THALAMUS = 13
    HIPPOCAMPUS = 14
    BRAINSTEM = 15
    CEREBELLUM = 16
    BLOOD = 17
    BRIGHT_WHITE = 18  #: patches of the ageing white matter
    INFARCT = 19
    MENINGIOMA = 20
    OEDEMA = 21
    LACUNE = 22
    BLEED = 23
    NERVE = 24  #: trigeminal, from the pons to its ganglion


N_TISSUES = len(Tissue)
#: Where the labels of the inside of the skull begin.
FIRST_INSIDE = int(Tissue.DURA)
#: Half extent of the random fields, mm, and their spacing.
FIELD_MM, FIELD_STEP_MM = 116.0, 4.0
#: Limits of the label grid, mm.
LOW_MM, HIGH_MM = (-86.0, -108.0, -122.0), (86.0, 106.0, 92.0)
#: Semi-axes of the inside of the skull, mm; its centre is (0, -8, 4).
CAVITY_MM = (68.5, 87.5, 68.0)
_AIR, _SKIN, _FAT, _MUSCLE, _BONE, _MARROW, _EYE, _DURA = range(8)
_CSF, _CORTEX, _WHITE, _STRIATUM, _PALLIDUM, _THALAMUS, _HIPPOCAMPUS, _BRAINSTEM, _CEREBELLUM = range(8, 17)
_BLOOD, _BRIGHT, _INFARCT, _MENINGIOMA, _OEDEMA, _LACUNE, _BLEED, _NERVE = range(17, 25)


#: Kind of a meningioma that stays on one side of the midline, and of oedema around a large one.
_AT_FALX, _AROUND = 6, 5


class Shape(NamedTuple):
    """Numbers of one head that the compiled functions read; see :class:`Head`."""

    ventricles: float
    asymmetry: float
    cortex: float
    sulci: float
    gap: float
    hippocampus: float
    white_matter: float
    skull: float
    scalp: float
    nerve: float
    bend_left: float
    bend_right: float


def paint_head(head: Head, step_mm: float) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Paint a head onto its label grid.

    Args:
        head: to paint.
        step_mm: spacing of the grid.

    Returns:
        (X, Y, Z) labels of :class:`Tissue`, and the (4, 4) affine of the grid to mm in the head's own frame (not
        posed).
    """
    low, high = np.array(LOW_MM) * head.scale, np.array(HIGH_MM) * head.scale
    shape = np.ceil((high - low) / step_mm).astype(int)
    affine = np.diag([step_mm] * 3 + [1.0])
    affine[:3, 3] = low
    numbers = Shape(
        head.ventricles, head.asymmetry, head.cortex_mm, head.sulci_mm, head.gap_mm, head.hippocampus,
        head.white_matter, head.skull_mm, head.scalp_mm, head.nerve_mm, *head.nerve_bend_mm,
    )  # fmt: skip
    lesions = np.array(
        [(lesion.kind, *lesion.centre_mm, lesion.radius_mm) for lesion in head.lesions], np.float64
    ).reshape(-1, 5)
    for lesion in lesions:
        if lesion[0] == MENINGIOMA:
            _move_to_dura(lesion)
    labels = np.zeros(tuple(shape), np.uint8)
    fold, rough = fields_of(head.seed, head.index)
    scale = np.array(head.scale)
    _paint(labels, low / scale, step_mm / scale, numbers, fold, rough, lesions)
    return labels, affine


def _move_to_dura(lesion: NDArray[np.float64]) -> None:
    """Move a meningioma so that about two thirds of it lie inside the skull, or beside the falx, in place."""
    if abs(lesion[1]) < 10.0:
        lesion[0], lesion[1] = _AT_FALX, np.sign(lesion[1]) * 0.75 * lesion[4]
        return
    centre, axes = np.array([0.0, -8.0, 4.0]), np.array(CAVITY_MM)
    place = lesion[1:4] - centre
    place *= 1.0 / np.sqrt(((place / axes) ** 2).sum())
    lesion[1:4] = centre + place * (1.0 - 0.62 * lesion[4] / np.linalg.norm(place))


def fields_of(seed: int, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, N, N) field whose zero surfaces are sulci, and a rough one for edges and patches; unit variance.

    Args:
        seed: of the cohort.
        index: of the participant.
    """
    own, rough = _random_fields(seed + 1, index + 1)
    return 0.75 * _common_fold() + 0.66 * own, rough


@cache
def _common_fold() -> NDArray[np.float32]:
    return _random_fields(0, 0)[0]


def _random_fields(*seeds: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    count = int(2 * FIELD_MM / FIELD_STEP_MM) + 1
    rng = np.random.default_rng(np.random.SeedSequence([*seeds, 8151]))
    noise = rng.standard_normal((count, count, count), np.float32)
    fine, coarse = (ndimage.gaussian_filter(noise, sigma, truncate=3.0) for sigma in (1.05, 1.9))
    fold, rough = fine - coarse, fine
    return fold / fold.std(), rough / rough.std()


@compiled
def _value(field: Any, x: Any, y: Any, z: Any, out: Any) -> None:
    """Value and gradient (per mm) of a field at a place, into ``out`` (4,)."""
    n = field.shape[0]
    a = min(max((x + FIELD_MM) / FIELD_STEP_MM, 0.0), n - 1.001)
    b = min(max((y + FIELD_MM) / FIELD_STEP_MM, 0.0), n - 1.001)
    c = min(max((z + FIELD_MM) / FIELD_STEP_MM, 0.0), n - 1.001)
    i, j, k = int(a), int(b), int(c)
    a, b, c = a - i, b - j, c - k
    v000, v100 = field[i, j, k], field[i + 1, j, k]
    v010, v110 = field[i, j + 1, k], field[i + 1, j + 1, k]
    v001, v101 = field[i, j, k + 1], field[i + 1, j, k + 1]
    v011, v111 = field[i, j + 1, k + 1], field[i + 1, j + 1, k + 1]
    x00, x10, x01, x11 = (
        v000 + a * (v100 - v000),
        v010 + a * (v110 - v010),
        v001 + a * (v101 - v001),
        v011 + a * (v111 - v011),
    )
    y0, y1 = x00 + b * (x10 - x00), x01 + b * (x11 - x01)
    out[0] = y0 + c * (y1 - y0)
    d0 = (v100 - v000) * (1 - b) + (v110 - v010) * b
    d1 = (v101 - v001) * (1 - b) + (v111 - v011) * b
    out[1] = (d0 + c * (d1 - d0)) / FIELD_STEP_MM
    out[2] = ((x10 - x00) * (1 - c) + (x11 - x01) * c) / FIELD_STEP_MM
    out[3] = (y1 - y0) / FIELD_STEP_MM


@compiled
def _inside(x: Any, y: Any, z: Any, ax: Any, ay: Any, az: Any) -> Any:
    """Distance to the surface of an ellipsoid around 0, mm, to first order; positive inside."""
    u, v, w = x / ax, y / ay, z / az
    r = np.sqrt(u * u + v * v + w * w)
    if r < 1e-6:
        return min(ax, ay, az)
    slope = np.sqrt((u / ax) ** 2 + (v / ay) ** 2 + (w / az) ** 2) / r
    return (1.0 - r) / slope


@compiled
def _cavity(x: Any, y: Any, z: Any) -> Any:
    """Distance to the inner table of the skull, mm, positive inside: a vault on a base of three steps."""
    vault = _inside(x, y + 8.0, z - 4.0, CAVITY_MM[0], CAVITY_MM[1], CAVITY_MM[2])
    base = -69.0 + 14.0 * min(1.0, max(0.0, (y + 30.0) / 14.0)) + 26.0 * min(1.0, max(0.0, (y - 24.0) / 20.0))
    sella = -24.0 - 3.0 * max(0.0, abs(x) - 14.0) - 2.0 * max(0.0, -4.0 - y)
    return min(vault, z - max(base, sella))


@compiled
def _outside_skull(x: Any, y: Any, z: Any, depth: Any, s: Any, rough: Any) -> Any:
    """Tissue outside the inside of the skull; ``depth`` is negative there."""
    ax = abs(x)
    eye = _inside(ax - 31.0, y - 68.0, z + 29.0, 12.5, 12.5, 12.5)
    if eye > 0.0:
        return _EYE
    table = 0.28 * s.skull
    if depth > -s.skull:
        return _MARROW if -s.skull + table < depth < -table else _BONE
    scalp = depth + s.skull
    neck = min(1.0 - (x / 57.0) ** 2 - ((y + 24.0) / 60.0) ** 2, 0.02 * (-46.0 - z)) * 29.0
    face = _inside(x, y - 40.0, z + 58.0, 60.0, 52.0, 68.0)
    nose = _inside(x, y - 92.0, z + 48.0, 13.0, 15.0, 21.0)
    soft = max(face, neck, nose)
    if soft < 0.0 and scalp < -s.scalp:
        return _AIR
    if soft < 0.0:
        return _SKIN if scalp < 2.0 - s.scalp else _FAT
    if _inside(x, y - 70.0, z + 50.0, 7.0 + 4.0 * np.sin(0.4 * z), 22.0, 17.0) > 0.0:
        return _AIR  # nasal cavity
    if _inside(ax - 25.0, y - 68.0, z + 55.0, 11.0, 13.0, 14.0) > 0.0:
        return _AIR  # maxillary sinus
    if _inside(x, y - 78.0, z + 8.0, 22.0, 7.0, 9.0) > 0.0 or _inside(x, y - 18.0, z + 84.0, 8.0, 8.0, 46.0) > 0.0:
        return _AIR  # frontal sinus, pharynx
    skin = max(soft, scalp + s.scalp)
    if skin < 2.0:
        return _SKIN
    if skin < 0.8 * s.scalp or _inside(ax - 30.0, y - 60.0, z + 29.0, 17.0, 24.0, 16.0) > 0.0:
        return _FAT  # under the skin, orbit
    spine = _inside(x, y + 24.0, 0.0, 13.0, 13.0, 999.0)
    if z < -66.0 and spine > 0.0:
        return _BONE if spine < 2.5 else _MARROW
    cord = _inside(x, y + 43.0, 0.0, 10.0, 9.0, 999.0)
    if z < -60.0 and cord > 0.0:
        return _BRAINSTEM if cord > 3.5 else _CSF
    jaw = _inside(x, y - 38.0, z + 86.0, 46.0, 48.0, 20.0)
    if 0.0 < jaw < 9.0 and y > 10.0:
        return _BONE if jaw < 2.5 or jaw > 7.0 else _MARROW
    return _FAT if rough > 1.1 else _MUSCLE


@compiled
def _ventricle(ax: Any, y: Any, z: Any, side: Any, s: Any) -> Any:
    """How far inside the ventricles, in units of their radius; 1 in the middle, negative outside."""
    v = s.ventricles * (1.0 + side * s.asymmetry)
    x_mid = 6.0 + 3.2 * v + 0.10 * max(0.0, -y)
    z_mid = 17.0 - 0.007 * (y + 2.0) ** 2
    end = max(0.0, abs(y + 2.0) - 22.0) / 11.0
    body = 1.0 - ((ax - x_mid) / (4.2 * v)) ** 2 - ((z - z_mid) / (5.4 * v)) ** 2 - end * end
    atrium = 1.0 - ((ax - 23.0) / (5.5 * v)) ** 2 - ((y + 40.0) / (14.0 * v)) ** 2 - ((z - 7.0) / (8.0 * v)) ** 2
    horn = 1.0 - ((ax - 32.0) / (2.6 * v)) ** 2 - ((y + 14.0) / 17.0) ** 2 - ((z + 15.0) / (3.0 * v)) ** 2
    third = 1.0 - (ax / (0.6 + 1.3 * v)) ** 2 - ((y + 7.0) / 15.0) ** 2 - ((z + 1.0) / 10.0) ** 2
    fourth = 1.0 - (ax / (6.0 * v**0.5)) ** 2 - ((y + 45.0) / 5.0) ** 2 - ((z + 34.0) / 10.0) ** 2
    return max(body, atrium, horn, third, fourth)


@compiled
def _deep(ax: Any, y: Any, z: Any, wet: Any, s: Any) -> Any:
    """Deep tissue at a place, or -1; ``wet`` is the result of :func:`_ventricle`."""
    if wet > 0.0:
        return _CSF
    if (
        _inside(ax, y + 26.0, z + 36.0, 16.0, 13.0, 16.0) > 0.0
        or _inside(ax, y + 22.0, z + 14.0, 15.0, 10.0, 13.0) > 0.0
    ):
        return _BRAINSTEM
    if z < -40.0 and _inside(ax, y + 33.0 + 0.12 * (z + 40.0), 0.0, 8.0, 8.0, 999.0) > 0.0:
        return _BRAINSTEM
    v = s.ventricles
    if _inside(ax - (10.0 + 6.5 * v), y - 12.0, z - 9.0, 5.0, 14.0, 9.0) > 0.0:
        return _STRIATUM  # head of the caudate
    if _inside(ax - (14.0 + 7.0 * v), y + 12.0, z - 17.0, 3.0, 16.0, 3.6) > 0.0:
        return _STRIATUM  # its body
    if _inside(ax - 27.0, y - 3.0, z - 1.0, 5.0, 17.0, 10.0) > 0.0:
        return _STRIATUM  # putamen
    if _inside(ax - 20.0, y + 1.0, z + 1.0, 4.2, 9.5, 7.0) > 0.0:
        return _PALLIDUM
    if _inside(ax - (8.5 + 1.5 * v), y + 17.0, z - 4.0, 8.0, 14.0, 9.0) > 0.0:
        return _THALAMUS
    h = s.hippocampus
    if _inside(ax - 27.0, y + 18.0, z + 15.5, 5.5 * h, 18.0 * h, 5.0 * h) > 0.0:
        return _HIPPOCAMPUS
    if _inside(ax - 23.0, y - 3.0, z + 18.0, 7.0 * h, 7.0 * h, 7.0 * h) > 0.0:
        return _HIPPOCAMPUS  # amygdala
    return -1


@compiled
def _nerve(x: Any, y: Any, z: Any, s: Any) -> Any:
    """Trigeminal nerve or the fluid around it, or -1: from the side of the pons forwards to the wider ganglion."""
    t = (y + 24.0) / 24.0
    if s.nerve <= 0.0 or t < -0.1 or t > 1.15:
        return -1
    bend = s.bend_left if x < 0.0 else s.bend_right
    across, up = abs(x) - 14.0 - 6.0 * t, z + 32.0 - bend * t * (2.0 - t)
    ahead = max(0.0, t - 1.0) * 24.0
    width = s.nerve * (1.0 + 0.45 * max(0.0, t - 0.5))
    far = np.sqrt((across / 1.15) ** 2 + up * up + ahead * ahead)
    if far < width:
        return _NERVE
    return _CSF if far < width + 3.2 else -1


@compiled
def _cerebrum(x: Any, y: Any, z: Any) -> Any:
    """Distance to the smooth hull of the cerebrum, mm, positive inside."""
    ax = abs(x)
    narrow = 1.0 - 0.12 * max(0.0, y / 84.0) ** 2 - 0.05 * max(0.0, -y / 84.0) ** 2
    main = _inside(x, y + 8.0, z - 6.0, 66.0 * narrow, 85.0, 64.0 if z > 6.0 else 42.0)
    temporal = _inside(ax - 40.0, y - 4.0, z + 30.0, 24.0, 44.0, 21.0)
    return max(main, temporal)


@compiled
def _sylvian(ax: Any, y: Any, z: Any) -> Any:
    """Distance to the lateral fissure, mm."""
    across = 0.9 * (z + 4.0 + 0.42 * (y + 2.0))
    inwards = max(0.0, 33.0 - ax)
    along = max(0.0, y - 30.0, -36.0 - y)
    return np.sqrt(across * across + inwards * inwards + along * along)


@compiled
def _cortical(x: Any, y: Any, z: Any, hull: Any, s: Any, fold: Any, patch: Any, scratch: Any, small: Any) -> Any:
    """CSF, cortex or white matter at a place inside the hull of the cerebrum.

    ``patch`` modulates the depth of the sulci. Where gyri are ``small``, sulci are shallow and narrow, and the cortex,
    of fused folds, looks thick, with a bumpy border to the white matter.
    """
    ax = abs(x)
    u, v, w = x / 66.0, (y + 8.0) / 85.0, (z - 6.0) / 64.0
    r = max(0.05, np.sqrt(u * u + v * v + w * w))
    pull = (0.72 + 0.28 * r) / r  # sulci run inwards
    _value(fold, x * pull, (y + 8.0) * pull - 8.0, (z - 6.0) * pull + 6.0, scratch)
    far = max(1.0, np.sqrt(x * x + (y + 8.0) ** 2 + (z - 6.0) ** 2))
    along = (scratch[1] * x + scratch[2] * (y + 8.0) + scratch[3] * (z - 6.0)) / far
    steep = scratch[1] ** 2 + scratch[2] ** 2 + scratch[3] ** 2 - along * along
    slope = np.sqrt(max(0.0, steep) * pull * pull + (0.28 * along) ** 2) + 0.02
    reach = 2.5 if small else 12.5 + 3.5 * patch
    below = max(0.0, hull - reach)
    sulcus = np.sqrt((abs(scratch[0]) / slope) ** 2 + below * below)
    arch = ((y + 6.0) / 50.0) ** 2 + ((z - 3.0) / 27.0) ** 2
    under = 0.0 if arch > 1.0 else (1.0 - np.sqrt(arch)) * 27.0
    midline = np.sqrt(ax * ax + under * under)
    lateral = _sylvian(ax, y, z + 2.0 * patch)
    width = s.sulci * (1.25 if hull < 0.4 * reach else 0.85)
    if (sulcus < width and below == 0.0) or lateral < 1.5 * s.sulci + 0.4 or (midline < 0.9 + s.sulci and under == 0.0):
        return _DURA if ax < 0.9 and z > 12.0 and hull < 26.0 else _CSF
    pial = min(hull, sulcus - width, lateral - 1.5 * s.sulci - 0.4, midline - 0.9 - s.sulci)
    if small:
        bumps = np.sin(1.1 * x + 2.0 * patch) * np.sin(1.1 * y) + np.sin(1.1 * z - 2.0 * patch) * np.sin(1.1 * y + 1.0)
        if bumps > 1.2 and hull < 2.5:
            return _CSF
        fused = min(hull, lateral - 1.5 * s.sulci - 0.4, midline - 0.9 - s.sulci)
        return _CORTEX if fused < 2.3 * s.cortex + 2.0 * bumps else _WHITE
    return _CORTEX if pial < s.cortex else _WHITE


@compiled
def _cerebellar(x: Any, y: Any, z: Any, depth: Any, s: Any) -> Any:
    """CSF, cortex or white matter of the cerebellum; folia run from side to side."""
    if depth < 15.0:
        wave = np.sin(0.95 * (z + 0.35 * y) + 0.03 * abs(x))
        if wave > 0.86 - 0.25 * s.sulci and depth < 7.0:
            return _CSF
        if depth < 4.0 or wave > -0.35:
            return _CEREBELLUM
        return _CEREBELLUM if depth < 8.0 else _WHITE
    return _WHITE


@compiled
def _brain(x: Any, y: Any, z: Any, depth: Any, s: Any, fold: Any, rough: Any, scratch: Any, small: Any) -> Any:
    """Tissue inside the skull, without lesions; ``depth`` is the distance to the dura, ``small`` the size of gyri."""
    ax, side = abs(x), 1.0 if x > 0 else -1.0
    if ax < 3.2 and 0.8 < depth < 5.5 and z > 20.0:
        return _BLOOD  # sagittal sinus
    if depth < 1.0:
        return _DURA
    wet = _ventricle(ax, y, z, side, s)
    deep = _deep(ax, y, z, wet, s)
    if deep >= 0:
        return deep
    nerve = _nerve(x, y, z, s)
    if nerve >= 0:
        return nerve
    swell = 1.0 + 0.0075 * (s.gap - 1.5)  # the brain shrinks within its skull
    hull = _cerebrum(x * swell, y * swell, z * swell)
    if depth < s.gap:
        return _CSF
    tent = -19.0 - 0.28 * (y + 40.0)
    below = -9.0
    if y < -20.0 and z < tent:
        below = _inside(x * swell, (y + 55.0) * swell, (z + 42.0) * swell, 54.0, 34.0, 28.0)
    if below > -3.0:
        return _CSF if below < 0.0 or z > tent - 1.6 else _cerebellar(x, y, z, below, s)
    if hull < 0.0:
        return _CSF
    patch = rough[0]
    found = _cortical(x, y, z, hull, s, fold, min(1.5, max(-1.5, patch)), scratch, small)
    if found == _WHITE and hull > 12.0:
        near = -wet * 4.0
        if near < 1.0 + 9.0 * s.white_matter and patch > 1.3 - 1.9 * s.white_matter + 0.12 * near:
            return _BRIGHT
    return found


@compiled
def _lesion_at(x: Any, y: Any, z: Any, edge: Any, lesions: Any, place: Any) -> Any:
    """Kind of lesion at a point inside the skull, 0 without one; -1 in the cleft around a meningioma.

    ``place`` (3,) becomes the point where a meningioma's neighbourhood was before it was pushed away.
    """
    kind = 0
    place[0], place[1], place[2] = x, y, z
    for k in range(lesions.shape[0]):
        dx, dy, dz, radius = x - lesions[k, 1], y - lesions[k, 2], z - lesions[k, 3], lesions[k, 4]
        far, what = np.sqrt(dx * dx + dy * dy + dz * dz), int(lesions[k, 0])
        if what in (MENINGIOMA, _AT_FALX):
            if far > 2.6 * radius or (what == _AT_FALX and x * lesions[k, 1] < 0.0):
                continue
            size = radius * (1.0 + 0.07 * edge)
            if far < size:
                return MENINGIOMA
            if far < size + 1.2:
                return -1
            pushed = (far - 0.75 * radius) * 1.405 / far  # onto a shell from 0.35 to 2.6 radii
            place[0], place[1], place[2] = (
                lesions[k, 1] + dx * pushed,
                lesions[k, 2] + dy * pushed,
                lesions[k, 3] + dz * pushed,
            )
            if radius > 15.0 and far < radius * (1.28 + 0.14 * edge):
                kind = _AROUND
        elif far < radius * (1.0 + (0.30 if what == INFARCT else 0.12) * edge) and x * lesions[k, 1] >= -4.0:
            kind = what
    return kind


@compiled
def _point(x: Any, y: Any, z: Any, s: Any, fold: Any, rough: Any, lesions: Any, scratch: Any, edge: Any) -> Any:
    """Tissue at a place of the average head."""
    depth = _cavity(x, y, z)
    if depth < -60.0 and z > -20.0:
        return _AIR
    _value(rough, x, y, z, edge)
    if depth < 0.0:
        return _outside_skull(x, y, z, depth, s, edge[0])
    place = edge[1:]
    kind = _lesion_at(x, y, z, edge[0], lesions, place)
    if kind == MENINGIOMA:
        return _MENINGIOMA
    if kind < 0:
        return _CSF
    small = kind == POLYMICROGYRIA
    found = _brain(place[0], place[1], place[2], depth, s, fold, edge, scratch, small)
    if kind == 0 or small or found < _CORTEX or found in (_BLOOD, _NERVE):
        return found
    if kind == _AROUND:
        return _OEDEMA if found in (_WHITE, _BRIGHT) else found
    return _INFARCT if kind == INFARCT else _LACUNE if kind == LACUNE else _BLEED


@compiled
def _paint(labels: Any, low: Any, step: Any, s: Any, fold: Any, rough: Any, lesions: Any) -> None:
    """Paint all voxels of the grid, in place; places in mm of the average head."""
    scratch, edge = np.zeros(4), np.zeros(4)
    for i in range(labels.shape[0]):
        for j in range(labels.shape[1]):
            for k in range(labels.shape[2]):
                labels[i, j, k] = _point(
                    low[0] + i * step[0], low[1] + j * step[1], low[2] + k * step[2], s, fold, rough, lesions, scratch,
                    edge,
                )  # fmt: skip
