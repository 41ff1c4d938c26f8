"""How often the default limits of image quality flag synthetic bodies: flawless ones by body size, and every anomaly.

The tables of docs/quality.md, in some ten minutes:

    python examples/quality_study.py --count 300 --extremes 40 --each 8 --size full
"""

from __future__ import annotations

import argparse
from collections import Counter

from ukb_infer.phantom import ANOMALIES, render, sample_subject, truths
from ukb_infer.phantom.population import Subject
from ukb_infer.quality import MEASURES, measure_stations
from ukb_infer.quality.judge import Judge
from ukb_infer.quality.limits import read_spec
from ukb_infer.reasons import Reason
from ukb_infer.records import Measures

SEED = 77
CLASSES = ((0.0, 21.0, "under 21"), (21.0, 25.0, "21-25"), (25.0, 30.0, "25-30"), (30.0, 35.0, "30-35"),
           (35.0, 99.0, "35 and more"))  # fmt: skip
EFFECTS = [reason for reason, anomaly in ANOMALIES.items() if anomaly.effect]


def measure(subject: Subject, size: str, effect: Reason | None = None) -> Measures:
    effects = frozenset() if effect is None else frozenset({effect})
    return measure_stations(render(subject, size, effects).stations)  # type: ignore[arg-type]


def rates(codes: list[list[str]]) -> str:
    """Flags with the share of scans that have them."""
    counts = Counter(code for found in codes for code in found)
    return ", ".join(f"{code} {100 * n / len(codes):.1f} %" for code, n in counts.most_common()) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="flawless scans")
    parser.add_argument("--extremes", type=int, default=2, help="leanest, and as many fattest, of 5,000 more")
    parser.add_argument("--each", type=int, default=1, help="scans with each anomaly")
    parser.add_argument("--size", default="small", choices=["small", "full"])
    given = parser.parse_args()
    subjects = [sample_subject(SEED, k) for k in range(1, given.count + 1)]
    others = sorted((sample_subject(SEED + 1, k) for k in range(5000)), key=lambda s: s.adiposity)
    subjects += others[: given.extremes] + others[len(others) - given.extremes :]
    flawless = [measure(subject, given.size) for subject in subjects]
    judge = Judge(read_spec(), flawless)

    def codes(measures: Measures) -> list[str]:
        return [flag.reason.value for flag in judge.flags(measures)]

    values = [truths(subject) for subject in subjects]
    bmi = [v["weight"] / (v["height"] / 100) ** 2 for v in values]
    print("| flawless scans | number | flags |\n|---|---|---|")
    groups = [(name, [low <= b < high for b in bmi]) for low, high, name in CLASSES]
    groups = [(f"BMI {name}", chosen) for name, chosen in groups]
    groups += [("women", [not s.male for s in subjects]), ("men", [s.male for s in subjects])]
    for name, chosen in [*groups, ("all", [True] * len(subjects))]:
        found = [codes(m) for m, take in zip(flawless, chosen, strict=True) if take]
        print(f"| {name} | {len(found)} | {rates(found) if found else ''} |")
    print("\n| anomaly | number | flags |\n|---|---|---|")
    for effect in EFFECTS:
        found = [codes(measure(subject, given.size, effect)) for subject in subjects[: given.each]]
        print(f"| {effect.value} | {len(found)} | {rates(found)} |")
    print("\n| measure | lowest | median | highest |\n|---|---|---|---|")
    for name, entry in MEASURES.items():
        known = sorted(v for m in flawless if isinstance(v := m.get(name), float))
        if known and entry.unit != "text":
            print(f"| {name} | {known[0]:.3g} | {known[len(known) // 2]:.3g} | {known[-1]:.3g} |")


if __name__ == "__main__":
    main()
