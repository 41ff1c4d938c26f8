"""How well fat-water swaps are found, flagged and corrected on synthetic bodies from underweight to class-3 obesity.

The tables of docs/quality.md, in some twenty minutes each:

    python examples/swap_study.py --count 320 --healthy 0 --compare 25
    python examples/swap_study.py --count 320 --healthy 0 --compare 0 --regions
    python examples/swap_study.py --count 320 --healthy 0 --compare 120 --legs
    python examples/swap_study.py --count 0 --healthy 7500 --compare 0
"""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ukb_infer.imaging import project_stations
from ukb_infer.phantom import ANOMALIES, render, sample_subject, truths
from ukb_infer.phantom.anatomy import middle_mm
from ukb_infer.phantom.population import Subject
from ukb_infer.phantom.sampling import station_grids
from ukb_infer.quality.sample import sample_stations
from ukb_infer.quality.swaps import seams_of, treat_swaps
from ukb_infer.records import Station, Stations

Body = tuple[Station, ...]
Case = tuple[tuple[int, str], ...]
SEED = 991
#: Body types drawn in turn: adiposity, frame and muscle relative to the population's.
TYPES = ((0.2, 0.5, 0.90, 0.80), (0.5, 1.0, 1.0, 1.0), (1.0, 1.6, 1.0, 1.0), (1.6, 2.6, 1.0, 1.0), (2.6, 5.0, 1.0, 1.0))
CLASSES = ((18.5, "under 18.5"), (25.0, "18.5-25"), (30.0, "25-30"), (40.0, "30-40"), (99.0, "40 and more"))
PREVALENCE = 0.018
CASES: list[Case] = [
    *(((k, "whole"),) for k in (1, 2, 3, 4)), ((5, "both"),), ((6, "both"),),
    ((5, "left"),), ((5, "right"),), ((6, "left"),), ((6, "right"),),
    ((5, "left"), (6, "left")), ((5, "right"), (6, "right")), ((2, "whole"), (3, "whole")),
    tuple((k, "whole" if k < 5 else "both") for k in range(1, 7)),
]  # fmt: skip
PARTS: list[Case] = [((k, "part"),) for k in (2, 3, 4)] + [((k, side + " part"),) for k in (5, 6)
                                                         for side in ("left", "right")] + [
    ((3, "arm part"),), ((3, "dome part"),)]  # fmt: skip
#: Artefacts that are no swaps.
EFFECTS = [reason for reason, anomaly in ANOMALIES.items() if anomaly.effect and "swap" not in reason.value]


def draw(index: int) -> tuple[Subject, float]:
    """A subject of the body type whose turn it is, and its BMI."""
    rng = np.random.default_rng([SEED, index])
    low, high, frame, muscle = TYPES[index % len(TYPES)]
    plain = sample_subject(SEED, index)
    adiposity = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    subject = replace(
        plain, adiposity=adiposity, frame=frame * plain.frame, muscle=muscle * plain.muscle,
        visceral=plain.visceral * (adiposity / plain.adiposity) ** 0.8,
    )  # fmt: skip
    values = truths(subject)
    return subject, values["weight"] / (values["height"] / 100.0) ** 2


def smooth(rng: np.random.Generator, own: Station) -> np.ndarray:
    """Random field of standard deviation about 1 that varies over some 30 mm: a sum of products of smooth profiles."""
    profiles = []
    for n, spacing in zip(own.shape, own.spacing_mm, strict=True):
        knots = np.linspace(0, n - 1, max(3, round(n * spacing / 30.0)))
        profiles.append([np.interp(np.arange(n), knots, rng.normal(size=len(knots))) for _ in range(4)])
    return np.einsum("jx,jy,jz->xyz", *(np.asarray(p, np.float32) for p in profiles), optimize=True) / 2.0


def draws(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return rng.standard_normal(tuple(shape), np.float32)


def restyle(stations: Body, index: int) -> tuple[Body, list[float]]:
    """The second style (texture, field, gains, leakage, noise, contrast, position), and the moves of its stations, mm.

    Nothing in the package was set by looking at it.
    """
    rng = np.random.default_rng([SEED, index, 2])
    move, leak, bright = rng.uniform(-30.0, 30.0), rng.uniform((0.0, 0.0), (0.12, 0.06)), rng.uniform(0.8, 1.1)
    noise, made, moves = rng.uniform(9.0, 35.0), [], []
    spacing = float(stations[0].spacing_mm[1])
    cols = round(move / spacing)
    for own in stations:
        gain = rng.uniform(0.6, 1.6)
        field = np.exp(0.2 * smooth(rng, own)) * gain
        pair = []
        step = cols + int(rng.integers(-1, 2))
        moves.append(step * spacing)
        for volume, scale in ((own.water, 1.0), (own.fat, bright)):
            moved = np.zeros(volume.shape, np.float32)
            moved[:, max(step, 0) : own.shape[1] + min(step, 0)] = volume[
                :, max(-step, 0) : own.shape[1] - max(step, 0)
            ]
            pair.append(moved * scale * field * np.exp(0.1 * smooth(rng, own)))
        water, fat = pair
        mixed = (water * (1 - leak[1]) + leak[0] * fat, fat * (1 - leak[0]) + leak[1] * water)
        noisy = (np.hypot(v + noise * draws(rng, v.shape), noise * draws(rng, v.shape)) for v in mixed)
        new = [np.minimum(v, 4095).astype(np.uint16) for v in noisy]
        made.append(replace(own, water=new[0], fat=new[1]))
    return tuple(made), moves


def arm_of(own: Station, middle_mm: float) -> np.ndarray:
    """Voxels of the left arm: in every slice what lies beyond the emptiest column 20 to 140 mm inside the surface."""
    x = float(own.position_mm[0]) + float(own.spacing_mm[1]) * np.arange(own.shape[1])
    counts = (own.water.astype(np.float32) + own.fat > 150.0).sum(axis=0)
    border = np.full(own.shape[2], np.inf)
    for k, count in enumerate(counts.T):
        beyond = x[(x > middle_mm) & (count > 2)]
        near = np.flatnonzero((x > beyond.max(initial=middle_mm) - 140.0) & (x < beyond.max(initial=middle_mm) - 20.0))
        if len(beyond) and len(near):
            border[k] = x[near[count[near].argmin()]]
    return np.broadcast_to((x[:, None] > border)[None], own.shape)


def swap(stations: Body, case: Case, middles: Sequence[np.ndarray]) -> Body:
    """Exchange water and fat of stations or legs, of their lower half, of an arm, or of a ball of 60 mm radius.

    ``middles`` are the places x of the body's middle in the slices of every station, where the legs meet.
    """
    made = list(stations)
    for number, what in case:
        own, middle = made[number - 1], middles[number - 1]
        x = float(own.position_mm[0]) + float(own.spacing_mm[1]) * np.arange(own.shape[1])
        left = x[:, None] > middle
        columns = left if "left" in what else ~left if "right" in what else np.full(left.shape, True)
        slices = np.arange(own.shape[2]) >= (own.shape[2] // 2 if what.endswith("part") else 0)
        chosen = columns[None] & slices
        if what == "arm part":
            chosen = arm_of(own, float(middle.mean()))
        if what == "dome part":
            y, z = (float(own.spacing_mm[n]) * (np.arange(own.shape[n]) - own.shape[n] / 2) for n in (0, 2))
            chosen = y[:, None, None] ** 2 + (x[None, :, None] - middle.mean() + 70.0) ** 2 + z**2 < 60.0**2
        made[number - 1] = replace(
            own, water=np.where(chosen, own.fat, own.water), fat=np.where(chosen, own.water, own.fat)
        )
    return tuple(made)


class Tally:
    """Counts of one style."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.healthy: dict[str, Counter[str]] = defaultdict(Counter)
        self.artefacts: dict[str, Counter[str]] = defaultdict(Counter)
        self.decisions, self.bystanders, self.unequal, self.compared = 0, Counter[str](), 0, 0

    def person(self, stations: Body, bmi: str, effect: str = "") -> None:
        """One without a swap, with an artefact or without."""
        told = judge(stations)[1]
        self.decisions += len(told)
        counts = self.artefacts[effect] if effect else self.healthy[bmi]
        counts["people"] += 1
        counts["flagged"] += any(s.action != "none" for s in told)
        counts["corrected"] += any(s.action == "corrected" for s in told)

    def swapped(self, stations: Body, case: Case, middles: Sequence[np.ndarray], bmi: str, *, compare: bool) -> None:
        """One with a swap."""
        scan, told = judge(swap(stations, case, middles))
        self.decisions += len(told)
        expected = dict(case)
        for own in told:
            what = expected.get(own.station, "none")
            if what == "none":
                self.bystanders["stations"] += 1
                self.bystanders[own.action] += 1
                continue
            name = f"station {own.station}, {what}" if len(case) < 3 else "all six"
            for group in (bmi, "all"):
                counts = self.found[name, group]
                counts["scans"] += 1
                counts["flagged"] += own.action != "none"
                counts["right"] += own.kind == what.split()[-1]
                counts["corrected"] += own.action == "corrected"
                counts["falsely"] += own.action == "corrected" and own.kind != what.split()[-1]
        if compare and all(own.action == "corrected" for own in told if own.station in expected):
            differs = np.abs(project_stations(scan.stations).astype(int) - project_stations(stations)) > 1
            self.compared += 1
            self.unequal += bool(differs.mean() > 1e-3)


def judge(stations: Body):  # type: ignore[no-untyped-def]
    """The scan as corrected, and what was found."""
    samples = sample_stations(stations)
    return treat_swaps(Stations(stations), samples, seams_of(samples), "correct")


def interval(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson)."""
    z, p = 1.96, hits / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(middle - half, 0.0), middle + half


def wilson(hits: int, count: int) -> str:
    """Share in % with its 95 % interval."""
    if not count:
        return ""
    low, high = interval(hits, count)
    return f"{100 * hits / count:.2f} % ({100 * low:.2f}-{100 * high:.2f})"


def predictive(sensitivity: float, false: float) -> float:
    """Positive predictive value in %, at the published prevalence."""
    true, wrong = PREVALENCE * sensitivity, (1 - PREVALENCE) * false
    return 100 * true / (true + wrong) if true + wrong else math.nan


def bodies(first: int, count: int, size: str) -> Iterator[tuple[int, Subject, str, Body]]:
    for index in range(first, first + count):
        subject, bmi = draw(index)
        name = next(name for end, name in CLASSES if bmi < end)
        yield index, subject, name, render(subject, size).stations  # type: ignore[arg-type]


def middles_mm(subject: Subject, size: str, moves: Sequence[float]) -> list[np.ndarray]:
    """Place x of the middle of a subject that lies askew, in the slices of every station."""
    grids = station_grids(subject, size)  # type: ignore[arg-type]
    return [middle_mm(subject, grid.z_mm) + move for grid, move in zip(grids, moves, strict=True)]


def show(style: str, tally: Tally) -> None:
    people = sum((counts for counts in tally.healthy.values()), Counter[str]())
    print(f"\n## {style}: {tally.decisions} station decisions\n")
    print("| swap | scans | flagged | right kind | corrected | wrongly corrected |\n|---|---|---|---|---|---|")
    names = list(dict.fromkeys(name for name, _ in tally.found))
    whole = sum((tally.found[name, "all"] for name in names if "part" not in name), Counter[str]())
    rows = [(name, tally.found[name, "all"]) for name in names]
    for _, group in CLASSES:
        own = sum((tally.found[name, group] for name in names if "part" not in name), Counter[str]())
        rows.append((f"whole stations and legs, BMI {group}", own))
    for name, c in [*rows, ("whole stations and legs", whole)]:
        n = c["scans"]
        print(f"| {name} | {n} | {wilson(c['flagged'], n)} | {wilson(c['right'], n)} | {wilson(c['corrected'], n)} "
              f"| {c['falsely']} |")  # fmt: skip
    print("\n| without a swap | people | flagged | corrected |\n|---|---|---|---|")
    for name, c in [*((f"BMI {g}", tally.healthy[g]) for _, g in CLASSES), ("all", people), *tally.artefacts.items()]:
        print(f"| {name} | {c['people']} | {wilson(c['flagged'], c['people'])} | {c['corrected']} |")
    b, n = tally.bystanders, tally.bystanders["stations"]
    print(f"\nstations beside swapped ones: {n}, flagged {b['flagged']}, corrected {b['corrected']}")
    for what in ("flagged", "corrected") if whole["scans"] and people["people"] else ():
        share, high = people[what] / people["people"], interval(people[what], people["people"])[1]
        own = whole[what] / whole["scans"]
        print(f"positive predictive value of {what} at 1.8 %: {predictive(own, share):.1f} %, "
              f"at least {predictive(own, high):.1f} %")  # fmt: skip
    print(f"corrected projections: {tally.compared} compared, {tally.unequal} unequal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2, help="bodies that get every swap, in each style")
    parser.add_argument("--healthy", type=int, default=3, help="further bodies without one")
    parser.add_argument("--compare", type=int, default=1, help="bodies whose corrected projections are compared")
    parser.add_argument("--first", type=int, default=0, help="number of the first body")
    parser.add_argument("--regions", action="store_true", help="only the regional swaps")
    parser.add_argument("--legs", action="store_true", help="only swaps of one leg")
    parser.add_argument("--size", default="small", choices=["small", "full"])
    given = parser.parse_args()
    legs = [case for case in CASES if any(what in ("left", "right") for _, what in case)]
    chosen = legs if given.legs else PARTS if given.regions else CASES + PARTS
    tallies = {"the package's phantoms": Tally(), "second style": Tally()}
    for index, subject, bmi, stations in bodies(given.first, given.count + given.healthy, given.size):
        for tally, (body, moves) in zip(
            tallies.values(), ((stations, [0.0] * 6), restyle(stations, index)), strict=True
        ):
            middles, place = middles_mm(subject, given.size, moves), index - given.first
            tally.person(body, bmi)
            for effect in EFFECTS if not given.legs and place < (given.count + 3) // 4 else ():
                scan = render(subject, given.size, frozenset({effect})).stations
                tally.person(scan if body is stations else restyle(scan, index)[0], bmi, effect.value)
            for case in chosen if place < given.count else ():
                compare = place < given.compare and case in CASES
                tally.swapped(body, case, middles, bmi, compare=compare)
    for style, tally in tallies.items():
        show(style, tally)


if __name__ == "__main__":
    main()
