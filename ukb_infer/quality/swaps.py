"""Fat-water swaps: found by what fat and water look like, and by the seams; put right where no doubt is left.

Every cue changes its sign when water and fat of a half (right or left of the body's midline) are exchanged:

- *surface*: the fat fraction 2 to 5 mm below the front less that of the middle. People are wrapped in fat; muscle,
  organs and bone are in the middle.
- *brightness*: ln of the mean W + F where fat prevails over that where water does. T1 of fat is a third of muscle's,
  so that it is brighter in every T1-weighted gradient echo; thin people have bright fat (and marrow), too.
- *seam*: how well F - W of two stations agree where they overlap.

All stations are solved together, exactly (a chain of four states each). What is not clean then is reported and stays.

Regions (an arm, a liver dome) are looked for after that, as connected patches in which two planes of the same place are
exchanged: of two stations where they overlap, or of neighbouring slices of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ukb_infer.protocol import PROTOCOL
from ukb_infer.quality.body import void_ml
from ukb_infer.quality.sample import Float32, Float64, Sample, slices_first
from ukb_infer.quality.seams import Seam
from ukb_infer.reasons import Reason
from ukb_infer.records import Measures, Station, Stations, SwapMode

#: Stations from this number on show two legs, of which one can be swapped.
FIRST_OF_LEGS = 5
#: Swapped halves, right and left, of the states of a station; trunks have only the first and the last.
STATES = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
#: Prior ln odds of a swapped state of a station: 1.8 % of 38,971 participants have a swap, so some 0.2 % a state; and
#: what a leg gains that is swapped in the station above too.
LN_PRIOR, LN_SAME_LEG = -6.2, 3.0
#: Nats a unit of a cue, for x ~ N(+-m, s): 2 m / s^2. Surface: m 0.5, s 0.3. Brightness: m 0.4 (ln 560/300 is 0.6; of
#: liver 0.3), s 0.25. Seam (cosine): m 0.9, s 0.4. No single cue of a half or a seam counts more than ``MOST_NATS``.
NATS = {"surface": 11.0, "brightness": 12.0, "seam": 11.0}
MOST_NATS = 6.0
#: The middle of a half, as a share of its radius; where obese thighs still are muscle.
CORE = 0.5
#: Depth of the surface, mm.
SURFACE_MM = (2.0, 5.0)
#: Fewest voxels that tell a cue; and smallest share of either tissue amid the body that tells brightness.
FEWEST, LEAST_SHARE = 20, 0.01
#: Posterior from which a swap is reported, and corrected.
FLAGGED, CORRECTED = 0.5, 0.9999
#: What a corrected half must look like: fat below its surface, cues of their sign, no more fat than this, seams.
CLEAN_SURFACE, CLEAN_CONTRAST, CLEAN_BRIGHTNESS, CLEAN_FAT, CLEAN_SEAM = 0.6, 0.2, 0.05, 0.8, 0.6
#: Void from which metal is near, ml.
METAL_ML = 30.0
#: A region is exchanged where more than this share of a half is, from one sampled slice to the next …
EXCHANGED = 0.5
#: … or where a connected patch is: the cosine at most that it has, and at most that it gets when moved by a voxel; in
#: neighbouring slices also how far W + F may differ, for organs end where it changes. Its area in the overlap of two
#: stations (in every plane), and from one slice to the next, cm2.
PATCH_OF_SEAM, PATCH_OF_SLICES = np.array([-0.7, 0.3, 1.0]), np.array([-0.8, 0.3, 0.05])
SEAM_CM2, SLICES_CM2 = 3.0, 4.5
#: Agreement of at least one half of a seam with a patch: a participant who moved has none.
REST_OF_SEAM = 0.65
#: Smallest share of a patch that tells how bright a tissue is.
RARE = 0.1
#: The border between legs is looked for within this distance of the midline, mm; and it leans by at most so much, mm
#: sideways per mm of height.
BORDER_MM, LEAN = 25.0, 0.03
#: Lines a column that are tried at either end.
FINE = 12
#: Share of a half's voxels next to the border that may disagree across it after a correction.
RAGGED = 0.01
#: Lines with up to so many times the fewest voxels that touch may be the border; share of a plane that is no matter,
#: and what noise in a gap makes of it.
WIDER, TIE, NOISE = 1.5, 1e-3, 3e-3
#: Between legs at most this part touches of what does at the ends of the reach.
CLEFT = 0.8

Kind = Literal["none", "whole", "left", "right", "both", "part"]


@dataclass(frozen=True)
class Swap:
    """What was found in a station.

    Attributes:
        station: its number.
        kind: both are both legs of a station of legs, whole a station of the trunk.
        confidence: posterior of ``kind``, 0-1; for a part the share of the half that is exchanged between two slices,
            or the cosine of the patch with its sign changed.
        action: none, flagged or corrected.
        why: is not corrected, "" where there is no doubt.
    """

    station: int
    kind: Kind
    confidence: float
    action: Literal["none", "flagged", "corrected"]
    why: str = ""

    @property
    def sentence(self) -> str:
        """In words."""
        where = {"left": ", left leg", "right": ", right leg", "both": ", both legs", "part": ", a region"}
        doubt = f" ({self.why})" if self.why else ""
        return f"water and fat of station {self.station}{where.get(self.kind, '')} are swapped{doubt}: {self.action}"


class Cues:
    """What tells water from fat in a station, of its right and its left half.

    Args:
        sample: of the station.
    """

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    @cached_property
    def border(self) -> float:
        """Sampled column between the halves: the gap between legs, else the middle of the body."""
        sample = self.sample
        place = (self.midline_mm - float(sample.station.position_mm[0])) / sample.spacing_mm[2]
        if sample.station.number < FIRST_OF_LEGS:
            return place
        counts = sample.by_col[:, 0]
        near = np.flatnonzero(np.abs(np.arange(len(counts)) - place) * sample.spacing_mm[2] <= 2 * BORDER_MM)
        if not len(near) or counts[near].min() > 0.7 * np.median(counts[counts > 0]):
            return place
        lowest = near[counts[near] <= counts[near].min() + 0.02 * counts.max()]
        return float(lowest.mean())

    @property
    def midline_mm(self) -> float:
        """Place x of the body's middle, 0 without a body."""
        return self.sample.middle_mm or 0.0

    @property
    def border_mm(self) -> float:
        """Place x of the border."""
        return float(self.sample.station.position_mm[0]) + self.border * self.sample.spacing_mm[2]

    @cached_property
    def _sums(self) -> Float64:
        from ukb_infer.quality import kernels

        sums = np.zeros((2, 7))
        kernels.sum_halves(self.sample.water, self.sample.fat, self.sample.body, self.border, CORE, sums)
        return sums

    @cached_property
    def _surface(self) -> Float64:
        from ukb_infer.quality import kernels

        sample, sums = self.sample, np.zeros((2, 3))
        row = float(sample.station.spacing_mm[0])
        depth = np.array([round(SURFACE_MM[0] / row), max(1, int(SURFACE_MM[1] / row))])
        volumes, step = slices_first(sample.station), np.array(sample.step)
        kernels.sum_surface(*volumes, sample.threshold, sample.body, step, self.border, depth, sums)
        return sums

    @cached_property
    def surface_fraction(self) -> Float64:
        """(2,) fat fraction below the front; nan where it is not seen."""
        water, fat, count = self._surface.T
        return np.where(count >= FEWEST, fat / np.maximum(water + fat, 1e-9), np.nan)

    @cached_property
    def contrast(self) -> Float64:
        """(2,) fat fraction below the front less that of the middle; 0 where it is not known."""
        water, fat = self._sums[:, 5:].T
        contrast: Float64 = np.nan_to_num(self.surface_fraction - fat / np.maximum(water + fat, 1e-9))
        return contrast

    @cached_property
    def brightness(self) -> Float64:
        """(2,) ln of the mean W + F where fat prevails over that where water does; 0 where one is rare."""
        _, fatty, fat_sum, lean, lean_sum = self._sums[:, :5].T
        rare = np.minimum(fatty, lean) < np.maximum(LEAST_SHARE * (fatty + lean), FEWEST)
        safe = np.maximum([fatty, fat_sum, lean, lean_sum], 1e-9)
        return np.where(rare, 0.0, np.log(safe[1] / safe[0]) - np.log(safe[3] / safe[2]))

    @cached_property
    def fat_share(self) -> Float64:
        """(2,) share of the voxels amid the body in which fat prevails."""
        return self._sums[:, 1] / np.maximum(self._sums[:, 1] + self._sums[:, 3], 1.0)

    @cached_property
    def nats(self) -> Float64:
        """(2,) evidence that the half is swapped."""
        cues = (NATS["surface"] * self.contrast, NATS["brightness"] * self.brightness)
        evidence: Float64 = -np.sum([np.clip(cue, -MOST_NATS, MOST_NATS) for cue in cues], axis=0)
        return evidence

    @cached_property
    def exchanged(self) -> float:
        """Largest share of a half that is exchanged from one sampled slice to the next."""
        from ukb_infer.quality import kernels

        counts = np.zeros((max(len(self.sample.body) - 1, 0), 2, 2))
        kernels.count_exchanged(self.sample.water, self.sample.fat, self.sample.body, self.border, counts)
        shares = np.where(counts[..., 0] >= FEWEST, counts[..., 1] / np.maximum(counts[..., 0], 1.0), 0.0)
        return float(shares.max(initial=0.0))

    @cached_property
    def patch(self) -> float:
        """Cosine, its sign changed, of the largest patch that is exchanged between two sampled slices; 0 without."""
        from ukb_infer.quality import kernels

        sample, found = self.sample, np.zeros(6)
        kernels.find_patch(sample.water, sample.fat, sample.body, PATCH_OF_SLICES, found)
        return float(found[1] / found[0]) if found[0] * area_cm2(sample) >= SLICES_CM2 else 0.0

    @property
    def regional(self) -> float:
        """How sure it is that a region is exchanged within the station, 0-1; 0 without one."""
        return max(self.exchanged if self.exchanged > EXCHANGED else 0.0, self.patch)


def area_cm2(sample: Sample) -> float:
    """Area that a sampled voxel stands for in its slice, cm2."""
    return sample.spacing_mm[1] * sample.spacing_mm[2] / 100.0


def seam_patch(seam: Seam) -> tuple[float, float]:
    """A connected patch that is exchanged between two stations in every plane of their overlap.

    Returns:
        Its cosine with the sign changed (0 without a patch), and ln of the mean W + F of the upper station in it where
        fat prevails over that where water does: below 0 it is the upper one that is exchanged, above 0 the lower one,
        0 where one tissue is rare.
    """
    from ukb_infer.quality import kernels

    total = np.zeros(6)
    for plane in seam.planes:
        water, fat = np.zeros((2, 2, *plane.body.shape), np.float32)
        water[:, plane.body], fat[:, plane.body] = (plane.upper[0], plane.lower[0]), (plane.upper[1], plane.lower[1])
        kernels.find_patch(water, fat, np.stack([plane.body, plane.body]), PATCH_OF_SEAM, found := np.zeros(6))
        if found[0] * area_cm2(seam.upper) < SEAM_CM2:
            return 0.0, 0.0
        total += found
    if len(seam.planes) < 2:
        return 0.0, 0.0
    voxels, cosines, fat_sum, fatty, lean_sum, lean = total
    known = min(fatty, lean) >= RARE * voxels
    return float(cosines / voxels), float(np.log(fat_sum / fatty) - np.log(lean_sum / lean)) if known else 0.0


def seam_agreement(seam: Seam, border_mm: float) -> Float64:
    """(2,) cosine of (F - W)/(F + W) of both stations in the right and the left half of the overlap; nan if unknown.

    Args:
        seam: of two stations.
        border_mm: place x between the halves.
    """
    found = np.full(2, np.nan)
    if not seam.planes:
        return found
    x = np.concatenate([plane.x_mm for plane in seam.planes])
    upper, lower = (
        np.concatenate([_direction(getattr(plane, name)) for plane in seam.planes]) for name in ("upper", "lower")
    )
    for half, chosen in enumerate((x <= border_mm, x > border_mm)):
        length = np.sqrt((upper[chosen] ** 2).sum() * (lower[chosen] ** 2).sum())
        if chosen.sum() >= FEWEST and length > 0:
            found[half] = (upper[chosen] * lower[chosen]).sum() / length
    return found


def _direction(both: Float32) -> Float32:
    """(voxels,) (F - W)/(F + W) of (2, voxels) water and fat."""
    ratio: Float32 = (both[1] - both[0]) / (both[0] + both[1])
    return ratio


def solve(numbers: Sequence[int], nats: Float64, seams: Float64) -> Float64:
    """Posterior of the states of every station, given all: (stations, 4), rows sum to 1.

    Args:
        numbers: of the stations.
        nats: (stations, 2) evidence that a half is swapped.
        seams: (stations - 1, 2) agreement of the halves across a seam, nan where unknown.
    """
    own = nats @ STATES.T + np.array([0.0, LN_PRIOR, LN_PRIOR, LN_PRIOR])
    own[np.asarray(numbers) < FIRST_OF_LEGS, 1:3] = -np.inf
    same = np.where(STATES[:, None] == STATES[None], 0.5, -0.5)
    cue = np.clip(NATS["seam"] * np.nan_to_num(seams), -MOST_NATS, MOST_NATS)
    pairs = np.einsum("abh,kh->kab", same, cue)
    legs = LN_SAME_LEG * (STATES[:, None] & STATES[None]).any(axis=2)
    pairs[np.asarray(numbers[:-1]) >= FIRST_OF_LEGS] += legs
    down, up = [np.zeros(4)], [np.zeros(4)]
    for k in range(len(pairs)):
        down.append(np.logaddexp.reduce((down[-1] + own[k])[:, None] + pairs[k], axis=0))
        last = len(pairs) - 1 - k
        up.append(np.logaddexp.reduce((up[-1] + own[last + 1])[None] + pairs[last], axis=1))
    total = own + np.array(down) + np.array(up[::-1])
    posterior: Float64 = np.exp(total - np.logaddexp.reduce(total, axis=1, keepdims=True))
    return posterior


def find_swaps(samples: Sequence[Sample], seams: Sequence[Seam], *, correct: bool = False) -> tuple[Swap, ...]:
    """What is swapped in a scan, a station each.

    Args:
        samples: of the stations, head first.
        seams: between them.
        correct: say which ones are to be corrected; else all are flagged.
    """
    cues = [Cues(sample) for sample in samples]
    numbers = [sample.station.number for sample in samples]
    agreement = np.array([seam_agreement(seam, below.border_mm) for seam, below in zip(seams, cues[1:], strict=True)])
    agreement = agreement.reshape(-1, 2)
    posterior = solve(numbers, np.array([cue.nats for cue in cues]), agreement)
    states = np.where(posterior[:, 0] >= 1.0 - FLAGGED, 0, 1 + posterior[:, 1:].argmax(axis=1))
    flips = STATES[states]
    solved = agreement * np.where(flips[1:] == flips[:-1], 1.0, -1.0)
    found, parts = [], _find_parts(cues, seams, agreement, states)
    for k, (cue, state) in enumerate(zip(cues, states, strict=True)):
        kind = _kind(numbers[k], int(state))
        confidence = float(posterior[k, state])
        if k in parts:
            found.append(Swap(numbers[k], "part", parts[k], "flagged", "it is not the whole station or leg"))
        elif kind == "none":
            found.append(Swap(numbers[k], kind, confidence, "none"))
        else:
            why = "" if confidence >= CORRECTED else "unsure"
            why = why or _doubt(cue, flips[k]) or _doubt_around(k, samples, solved, parts)
            action: Literal["flagged", "corrected"] = "corrected" if correct and not why else "flagged"
            found.append(Swap(numbers[k], kind, confidence, action, why))
    return tuple(found)


def _find_parts(cues: Sequence[Cues], seams: Sequence[Seam], agreement: Float64, states: Any) -> dict[int, float]:
    """Stations with an exchanged region, and how sure that is; by seams only between stations that are not swapped."""
    parts = {k: cue.regional for k, cue in enumerate(cues) if cue.regional}
    told: list[tuple[tuple[int, ...], float]] = []
    for k, seam in enumerate(seams):
        if states[k] or states[k + 1] or k in parts or k + 1 in parts or not (agreement[k] >= REST_OF_SEAM).any():
            continue
        confidence, brightness = seam_patch(seam)
        if confidence:
            told.append(((k, k + 1) if not brightness else (k,) if brightness < 0 else (k + 1,), confidence))
    votes = Counter(k for own, _ in told for k in own)
    for own, confidence in told:
        most = max(votes[k] for k in own)
        parts |= {k: max(confidence, parts.get(k, 0.0)) for k in own if votes[k] == most}
    return parts


def _kind(number: int, state: int) -> Kind:
    kinds: tuple[Kind, ...] = ("none", "right", "left", "both" if number >= FIRST_OF_LEGS else "whole")
    return kinds[state]


def _doubt(cue: Cues, flips: Any) -> str:
    """Why the station's own cues do not allow a correction; "" if they do."""
    halves = flips.astype(bool)
    if not (cue.surface_fraction[halves] <= 1.0 - CLEAN_SURFACE).all():
        return "no fat below the surface"
    if not (-cue.contrast[halves] >= CLEAN_CONTRAST).all() or not (-cue.brightness[halves] >= CLEAN_BRIGHTNESS).all():
        return "its tissues do not tell"
    if not (1.0 - cue.fat_share[halves] <= CLEAN_FAT).all():
        return "almost all of it would be fat"
    return ""


def _doubt_around(k: int, samples: Sequence[Sample], solved: Float64, parts: Mapping[int, float]) -> str:
    """Why the other stations do not allow a correction of one; "" if they do."""
    if len(samples) != len(PROTOCOL):
        return f"the scan has {len(samples)} stations, expected {len(PROTOCOL)}"
    if not (solved[max(k - 1, 0) : k + 1] >= CLEAN_SEAM).all():
        return "a seam disagrees"
    near = range(max(k - 1, 0), min(k + 2, len(samples)))
    top_mm = max(float(sample.station.position_mm[2]) for sample in samples)
    if any(void_ml(samples[n], top_mm) >= METAL_ML for n in near):
        return "metal is near"
    return "a region nearby is swapped" if any(n in parts for n in near) else ""


# -- putting right -----------------------------------------------------------------------------------------------------


def correct_station(sample: Sample, kind: Kind, border_mm: float) -> Station | None:
    """Exchange water and fat of a station or a leg; None if no straight border separates the legs.

    Args:
        sample: of the swapped station.
        kind: whole, both, left (the patient's) or right.
        border_mm: about where the legs meet, x.
    """
    station = sample.station
    if kind in ("whole", "both"):
        return replace(station, water=station.fat, fat=station.water)
    border = _find_border(sample, kind, border_mm)
    if border is None:
        return None
    left = np.arange(station.shape[1])[:, None] > border
    chosen = left if kind == "left" else ~left
    water, fat = station.water.copy(order="K"), station.fat.copy(order="K")
    np.copyto(water, station.fat, where=chosen)
    np.copyto(fat, station.water, where=chosen)
    return replace(station, water=water, fat=fat)


def _find_border(sample: Sample, kind: Kind, border_mm: float) -> NDArray[np.int64] | None:
    """Last column of the right half in every slice: where an exchange leaves fewest steps from water to fat, and fat.

    The border is a straight line that may lean. Only lines along which little of the legs touches come into question.
    Where they do touch, the swap itself made steps there, and skin and fat of both meet; between legs apart no line has
    any. None if steps remain, or if muscle would meet muscle.
    """
    station = sample.station
    x0, spacing = float(station.position_mm[0]), float(station.spacing_mm[1])
    middle, reach = (border_mm - x0) / spacing, BORDER_MM / spacing
    first, last = max(int(middle - reach), 0), min(int(middle + reach) + 1, station.shape[1] - 1)
    if first >= last:
        return None
    water, fat = (v[..., first : last + 1].astype(np.float32) for v in slices_first(station))
    total = water + fat
    body = total > sample.threshold
    ratio = np.where(body, (fat - water) / np.maximum(total, 1e-6), 0.0)
    one, other = ratio[..., :-1], ratio[..., 1:]
    most = LEAN * float(station.spacing_mm[2]) * (station.shape[2] - 1) / spacing
    lines, leaning = _lines(last - first, station.shape[2], most)
    seen = np.arange(len(body)), lines
    touch = (body[..., :-1] & body[..., 1:]).sum(axis=1)
    legs = touch.min(axis=1) <= CLEFT * touch[:, [0, -1]].max(axis=1)  # not where they have become the trunk
    touching = touch[seen].sum(axis=1)
    steps = (np.abs(one + other) - np.abs(one - other)).sum(axis=1)[seen].sum(axis=1)
    fat_there = np.where((one != 0.0) & (other != 0.0), one - other if kind == "left" else other - one, 0.0)
    fatty, size = (fat_there.sum(axis=1) * legs[:, None])[seen].sum(axis=1), body[..., 0].size
    close = touching <= WIDER * touching[leaning == 0.0].min() + TIE * size
    cost = np.where(close, steps - fatty, np.inf)
    best = np.flatnonzero(cost <= cost.min() + NOISE * size)
    best = best[leaning[best] == leaning[best].min()]
    places = lines[best].mean(axis=1)
    line = best[np.abs(places - places.mean()).argmin()]  # amid the gap of legs apart
    clear = steps[line] <= RAGGED * size and fatty[line] >= -RAGGED * size
    return lines[line] + first if clear else None


def _lines(columns: int, slices: int, most: float) -> tuple[NDArray[np.int64], Float64]:
    """Straight lines through a station: the column of each in every slice, (lines, slices), and how far each leans.

    Args:
        columns: that a line may pass.
        slices: of the station.
        most: columns that a line may lean by, from the first slice to the last.
    """
    end = int(FINE * most)
    start, lean = (v.ravel() / FINE for v in np.mgrid[: FINE * columns, -end : end + 1])
    kept = (lean != 0.0) | (start % 1.0 == 0.0)
    start, lean = start[kept], lean[kept]
    lines = np.floor(start[:, None] + lean[:, None] * np.linspace(0.0, 1.0, slices)).astype(np.int64)
    inside = (lines.min(axis=1) >= 0) & (lines.max(axis=1) < columns)
    return lines[inside], np.abs(lean[inside])


def treat_swaps(
    scan: Stations, samples: Sequence[Sample], seams: Sequence[Seam], mode: SwapMode
) -> tuple[Stations, tuple[Swap, ...]]:
    """Look for swaps, correct them if asked to, and raise flags.

    Args:
        scan: as read and checked.
        samples: of its stations.
        seams: between them.
        mode: flag, correct or ignore.

    Returns:
        The scan, unchanged where nothing was corrected or found, and what was found in each station.
    """
    if mode == "ignore":
        return scan, ()
    found = list(find_swaps(samples, seams, correct=mode == "correct"))
    stations = list(scan.stations)
    for k, swap in enumerate(found):
        if swap.action == "corrected":
            fixed = correct_station(samples[k], swap.kind, Cues(samples[k]).border_mm)
            if fixed is None:
                found[k] = replace(swap, action="flagged", why="the legs have no straight border")
            else:
                stations[k] = fixed
    raised = [swap for swap in found if swap.kind != "none"]
    flags, messages = list(scan.flags), list(scan.messages)
    for reason, legs in ((Reason.FAT_WATER_SWAP, False), (Reason.FAT_WATER_SWAP_LEG, True)):
        own = [swap.sentence for swap in raised if (swap.kind in ("left", "right")) == legs]
        if own:
            flags.append(reason)
            messages.append("; ".join(own))
    return Stations(tuple(stations), tuple(flags), tuple(messages), tuple(_record(s) for s in raised)), tuple(found)


def _record(swap: Swap) -> Mapping[str, Any]:
    """For the sidecar of a fused body."""
    confidence = round(swap.confidence, 6)
    return {"Station": swap.station, "Kind": swap.kind, "Confidence": confidence, "Action": swap.action}


def swap_measures(found: Sequence[Swap]) -> Measures:
    """Columns of ``quality.csv``: ``swap_1``, ``swap_1_confidence``, ``swap_1_action`` …"""
    columns: dict[str, float | str] = {}
    for swap in found:
        name = f"swap_{swap.station}"
        columns |= {name: swap.kind, f"{name}_confidence": round(swap.confidence, 6), f"{name}_action": swap.action}
    return columns


def uncorrected(measures: Measures) -> frozenset[Reason]:
    """Reasons of the swaps that were found and left, from the columns of :func:`swap_measures`."""
    left = {
        measures[name.removesuffix("_action")]
        for name, action in measures.items()
        if action == "flagged" and name.startswith("swap_")
    }
    return frozenset(Reason.FAT_WATER_SWAP_LEG if k in ("left", "right") else Reason.FAT_WATER_SWAP for k in left)


def seams_of(samples: Sequence[Sample]) -> list[Seam]:
    """Seams between the stations of a scan, head first."""
    return [Seam(upper, lower) for upper, lower in pairwise(samples)]
