"""From a painted head to images: the site's grid, partial volume, coil profile, Rician noise, stripping, defacing."""

from __future__ import annotations

import zlib
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray

from ukb_infer.compiling import compiled
from ukb_infer.phantom.heads.anatomy import FIRST_INSIDE, Tissue, paint_head
from ukb_infer.phantom.heads.population import Head
from ukb_infer.phantom.heads.signals import Sequence, signal_of, tissue_parameters
from ukb_infer.phantom.heads.sites import Site

Size = Literal["full", "small"]
#: Spacing of the label grid, and the least spacing of images, mm.
_LABEL_STEP_MM: dict[Size, float] = {"full": 1.6, "small": 2.2}
_SMALL_SPACING_MM = 3.5
#: Brightest tissue of the brain, in stored units, and the largest stored value.
_BRIGHT, _LARGEST = 1000.0, 8000
#: Points along each axis over which a voxel is averaged.
_POINTS = 2
#: What lies before this plane is face: y - 0.9 * (z + 12) > 66 mm, in the average head.
_FACE = (66.0, 0.9, 12.0)
#: Stripping leaves nothing of the cord below, mm in the average head.
_NECK_MM = -74.0
#: Relative spread of repetition, echo and inversion times between sessions.
_DRIFT = 0.03


@dataclass(frozen=True)
class Scan:
    """The images of one session.

    Attributes:
        images: int16 by modality, stored as the site does.
        mask: uint8 of the acute lesion on the same grid; of trigeminal nerves 1 on the left, 2 on the right.
        affine: (4, 4) stored voxel to RAS mm.
        brain: uint8, inside the skull.
    """

    images: dict[str, NDArray[np.int16]]
    mask: NDArray[np.uint8]
    affine: NDArray[np.float64]
    brain: NDArray[np.uint8]


def scan_head(head: Head, site: Site, modalities: Many[str], size: Size = "full", session: int = 1) -> Scan:
    """Scan a head: all contrasts on one grid.

    Args:
        head: to scan.
        site: where.
        modalities: of the site's sequences.
        size: ``full``, or ``small`` with voxels of at least 3.5 mm.
        session: number of the visit; noise, pose and timing differ between visits.

    Raises:
        KeyError: a modality that the site does not scan.
    """
    labels, label_affine = paint_head(head, _LABEL_STEP_MM[size])
    rng = np.random.default_rng(
        np.random.SeedSequence([head.seed, head.index, session, zlib.crc32(site.name.encode())])
    )
    shape, affine = _grid(head, site, size, rng)
    place = np.linalg.inv(_pose(head, rng)) @ affine  # of voxels in the head's own frame
    into = np.linalg.inv(label_affine) @ place
    window = _window(site, size)
    shares = np.empty((4, *shape), np.float32)
    _count(labels, into, window, np.array([FIRST_INSIDE, Tissue.INFARCT, Tissue.MENINGIOMA, Tissue.NERVE]), shares)
    brain = shares[0] > 0.5
    keep = _keep(site, brain, place, head, rng)
    parameters, bias = tissue_parameters(head, site.field_tesla), _bias(site, shape, rng)
    images = {}
    for name in modalities:
        sequence = _drifted(site.sequences[name], rng)
        images[name] = _image(labels, into, window, sequence, parameters, bias, keep, site.noise, rng)
    mask = (shares[1] + shares[2] > 0.5).astype(np.uint8)
    if head.nerve_mm:
        mask[shares[3] >= 0.5] = 1
        mask[(shares[3] >= 0.5) & (_along(place, 0, shape) > 0.0)] = 2
    return _stored(site, images, mask, affine, brain.astype(np.uint8))


def _drifted(sequence: Sequence, rng: np.random.Generator) -> Sequence:
    tr, te, ti = (value * float(np.exp(rng.normal(0.0, _DRIFT))) for value in (sequence.tr, sequence.te, sequence.ti))
    return replace(sequence, tr=tr, te=te, ti=ti)


def _grid(
    head: Head, site: Site, size: Size, rng: np.random.Generator
) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Shape and affine of the site's grid before it is stored, axes nearest to RAS."""
    spacing = np.array(site.spacing_mm)
    if size == "small":
        spacing = np.maximum(spacing, _SMALL_SPACING_MM)
    x, y, z = (round(float(extent / step)) for extent, step in zip(site.extent_mm, spacing, strict=True))
    tilt = np.deg2rad(site.tilt_degrees + rng.normal(0.0, 1.0) * (site.tilt_degrees != 0))
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    centre = np.array([0.0, -2.0, site.raise_mm - 4.0]) + rng.normal(0.0, 2.0, 3)
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array([x, y, z]) - 1) / 2)
    return (x, y, z), affine


def _pose(head: Head, rng: np.random.Generator) -> NDArray[np.float64]:
    """(4, 4) from the head's own frame to the scanner's."""
    a, b, c = head.pose[:3] + rng.normal(0.0, 0.02, 3)
    turns = [
        np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]),
        np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]),
        np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]),
    ]
    pose = np.eye(4)
    pose[:3, :3] = turns[0] @ turns[1] @ turns[2]
    pose[:3, 3] = head.pose[3:]
    return pose


def _window(site: Site, size: Size) -> NDArray[np.float64]:
    """(3,) parts of a voxel over which it is averaged."""
    return np.ones(3) if size == "small" or site.spacing_mm[2] > 2.0 else np.full(3, 1.1)


def _along(place: NDArray[np.float64], axis: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Coordinate of every voxel along an axis of the head, mm."""
    x, y, z = np.ogrid[tuple(slice(0, n) for n in shape)]
    return np.asarray(place[axis, 0] * x + place[axis, 1] * y + place[axis, 2] * z + place[axis, 3])


def _keep(
    site: Site, brain: NDArray[np.bool_], place: NDArray[np.float64], head: Head, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Voxels that stripping or defacing leaves."""
    if site.finish == "raw":
        return np.ones_like(brain)
    front, slope, low = _FACE
    at_y, at_z = (_along(place, k, brain.shape) for k in (1, 2))
    if site.finish == "stripped":
        return np.asarray(brain & (at_z > _NECK_MM * head.scale[2]))
    face = at_y / head.scale[1] - slope * (at_z / head.scale[2] + low) > front + rng.normal(0.0, 3.0)
    return np.asarray(~(face & (at_z < 5.0)) | brain)


def _bias(site: Site, shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth profile of the coil around 1: a bowl and a slope."""
    u, v, w = np.meshgrid(*(np.linspace(-1.0, 1.0, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    a, b, c = rng.normal(0.0, 0.4, 3)
    bowl = rng.uniform(0.3, 0.7) * (u * u + v * v + w * w - 1.0)
    return np.asarray(np.exp(site.bias * (bowl + a * u + b * v + c * w)), np.float32)


def _image(
    labels: NDArray[np.uint8], into: NDArray[np.float64], window: NDArray[np.float64], sequence: Sequence,
    parameters: NDArray[np.float64], bias: NDArray[np.float32], keep: NDArray[np.bool_], noise: float,
    rng: np.random.Generator,
) -> NDArray[np.int16]:  # fmt: skip
    """One contrast on the site's grid."""
    signals = signal_of(sequence, parameters)
    mapped = sequence.kind == "adc"
    if not mapped:
        signals = signals * (rng.uniform(0.7, 1.4) * _BRIGHT / signals[FIRST_INSIDE:].max())
    sd = sequence.noise * noise * (1.0 if mapped else float(signals[FIRST_INSIDE:].max()))
    if mapped:
        sd *= 2000.0
    spacing = np.linalg.norm(into[:3, :3], axis=0)
    up = int(np.argmax(spacing))
    stretched = window.copy()
    stretched[up] = max(window[up], sequence.thickness_mm / (spacing[up] * 1.6))
    out = np.empty(keep.shape, np.int16)
    state = np.uint64(rng.integers(1, 2**63))
    _render(labels, into, stretched, signals.astype(np.float32), bias, keep, np.float32(sd), mapped, state, out)
    return out


def _stored(
    site: Site, images: dict[str, NDArray[np.int16]], mask: NDArray[np.uint8], affine: NDArray[np.float64],
    brain: NDArray[np.uint8],
) -> Scan:  # fmt: skip
    """Turn everything into the site's order of axes."""
    turn = ornt_transform(axcodes2ornt(("R", "A", "S")), axcodes2ornt(tuple(site.axes)))

    def turned(data: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(apply_orientation(data, turn))

    stored = affine @ inv_ornt_aff(turn, mask.shape)
    return Scan({name: turned(image) for name, image in images.items()}, turned(mask), stored, turned(brain))


@compiled
def _point(into: Any, window: Any, i: Any, j: Any, k: Any, p: Any) -> Any:
    """Index into the labels of one of the points that stand for a voxel."""
    x = i + window[0] * ((p & 1) - 0.5) * 0.5
    y = j + window[1] * (((p >> 1) & 1) - 0.5) * 0.5
    z = k + window[2] * ((p >> 2) - 0.5) * 0.5
    a = int(into[0, 0] * x + into[0, 1] * y + into[0, 2] * z + into[0, 3] + 0.5)
    b = int(into[1, 0] * x + into[1, 1] * y + into[1, 2] * z + into[1, 3] + 0.5)
    c = int(into[2, 0] * x + into[2, 1] * y + into[2, 2] * z + into[2, 3] + 0.5)
    return a, b, c


@compiled
def _count(labels: Any, into: Any, window: Any, kinds: Any, out: Any) -> None:
    """Share of every voxel that lies inside the skull, and that is each further kind of tissue, into ``out``."""
    n = labels.shape
    step = 1.0 / (_POINTS**3)
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            for k in range(out.shape[3]):
                inside, one, two, three = 0.0, 0.0, 0.0, 0.0
                for p in range(_POINTS**3):
                    a, b, c = _point(into, window, i, j, k, p)
                    if 0 <= a < n[0] and 0 <= b < n[1] and 0 <= c < n[2]:
                        label = labels[a, b, c]
                        inside += step if label >= kinds[0] else 0.0
                        one += step if label == kinds[1] else 0.0
                        two += step if label == kinds[2] else 0.0
                        three += step if label == kinds[3] else 0.0
                out[0, i, j, k], out[1, i, j, k], out[2, i, j, k], out[3, i, j, k] = inside, one, two, three


@compiled
def _normal(state: Any) -> Any:
    """Next state of a 64-bit xorshift, and the sum of its four 16-bit parts around 0, which is nearly normal."""
    mask = np.uint64(0xFFFF)
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    state ^= state << np.uint64(17)
    low = (state & mask) + ((state >> np.uint64(16)) & mask)
    total = low + ((state >> np.uint64(32)) & mask) + (state >> np.uint64(48))
    return state, np.float32(total) - np.float32(131070)


@compiled
def _render(
    labels: Any, into: Any, window: Any, signals: Any, bias: Any, keep: Any, sd: Any, mapped: Any, state: Any, out: Any
) -> None:
    """Mean signal of every voxel with coil profile and noise, in place.

    Noise is Rician, of two nearly normal numbers; maps have normal noise within the tissue and none outside.
    """
    n = labels.shape
    step = np.float32(1.0 / _POINTS**3)
    factor = sd * np.float32(np.sqrt(3.0) / 65536.0)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                if not keep[i, j, k]:
                    out[i, j, k] = 0
                    continue
                total = np.float32(0.0)
                for p in range(_POINTS**3):
                    a, b, c = _point(into, window, i, j, k, p)
                    if 0 <= a < n[0] and 0 <= b < n[1] and 0 <= c < n[2]:
                        total += signals[labels[a, b, c]]
                total *= step
                state, one = _normal(state)
                if mapped:
                    out[i, j, k] = 0 if total <= 0.0 else int(min(_LARGEST, max(0.0, total + one * factor)))
                    continue
                state, two = _normal(state)
                real = total * bias[i, j, k] + one * factor
                imaginary = two * factor
                out[i, j, k] = int(min(_LARGEST, np.sqrt(real * real + imaginary * imaginary) + 0.5))
