"""The population of heads: age, sex, sizes and lesions drawn from plausible distributions.

Round values, chosen to look like adults of 20 to 88 years; they describe no real person.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.random import Generator

Disease = Literal["none", "infarct", "meningioma", "polymicrogyria"]
#: Youngest and oldest by default.
AGE_RANGE = (20.0, 88.0)
#: Middle and half width of the ages, to which the drifts with age refer.
_MIDDLE, _HALF = 54.0, 34.0
#: Share of cases with an acute infarct among those of the infarct task.
INFARCT_SHARE = 0.55
#: Territories: centre (right side, mm), its spread, smallest and largest radius, mm.
_TERRITORIES = (
    ((46.0, -4.0, 14.0), (5.0, 20.0, 14.0), (14.0, 27.0)),  # middle cerebral artery, cortex
    ((46.0, -4.0, 14.0), (5.0, 20.0, 14.0), (12.0, 24.0)),
    ((22.0, 0.0, 9.0), (4.0, 9.0, 6.0), (5.0, 9.0)),  # its deep branches
    ((9.0, 30.0, 38.0), (2.0, 18.0, 8.0), (11.0, 19.0)),  # anterior
    ((16.0, -70.0, 2.0), (5.0, 6.0, 7.0), (11.0, 20.0)),  # posterior
    ((24.0, -58.0, -42.0), (6.0, 6.0, 4.0), (8.0, 15.0)),  # cerebellum
    ((4.0, -26.0, -34.0), (2.0, 3.0, 5.0), (5.0, 7.0)),  # pons
)
#: Share of cases with polymicrogyria among those of its task; of them on both sides, and around the lateral fissure.
POLYMICROGYRIA_SHARE, _BOTH_SIDES, _PERISYLVIAN = 0.5, 0.6, 0.75


@dataclass(frozen=True)
class Lesion:
    """A sphere with an irregular edge.

    Attributes:
        kind: 1 acute infarct, 2 meningioma, 3 old lacune, 4 microbleed, 7 polymicrogyria of the cortex in it.
        centre_mm: in the head's own frame, to the right, to the front and up.
        radius_mm: of the sphere.
    """

    kind: int
    centre_mm: tuple[float, float, float]
    radius_mm: float


INFARCT, MENINGIOMA, LACUNE, BLEED, POLYMICROGYRIA = 1, 2, 3, 4, 7


@dataclass(frozen=True)
class Head:
    """Latent variables of one synthetic participant; lengths in the frame of the average head.

    Attributes:
        seed: of the cohort; ``index``: number of the participant in it.
        male: sex.
        age_years: at the scan.
        scale: (3,) size relative to the average, left-right, front-back, up.
        ventricles: linear size of the ventricles relative to the average.
        cortex_mm: thickness.
        sulci_mm: half width of the sulci.
        gap_mm: between brain and skull.
        hippocampus: linear size relative to the average.
        iron: of the deep nuclei, 1 = average; darkens T2*.
        white_matter: extent of bright patches around the ventricles, 0 to about 1.
        skull_mm: thickness; ``scalp_mm``: likewise.
        asymmetry: of the ventricles, -0.2 to 0.2.
        pose: rotations about the three axes, radians, and shifts, mm.
        lesion_water: (2,) T2 and ADC of the acute lesion relative to the average.
        lesions: acute and old, and where the cortex is malformed.
        nerve_mm: half width of the trigeminal nerves at the pons; 0: they and their cisterns are not drawn.
        nerve_bend_mm: (2,) how far the nerves run upwards, on the left and on the right.
    """

    seed: int
    index: int
    male: bool
    age_years: float
    scale: tuple[float, float, float]
    ventricles: float
    cortex_mm: float
    sulci_mm: float
    gap_mm: float
    hippocampus: float
    iron: float
    white_matter: float
    skull_mm: float
    scalp_mm: float
    asymmetry: float
    pose: tuple[float, float, float, float, float, float]
    lesion_water: tuple[float, float]
    lesions: tuple[Lesion, ...]
    nerve_mm: float = 0.0
    nerve_bend_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def disease(self) -> Disease:
        """What the participant was scanned for."""
        kinds = {lesion.kind for lesion in self.lesions}
        known: dict[int, Disease] = {INFARCT: "infarct", MENINGIOMA: "meningioma", POLYMICROGYRIA: "polymicrogyria"}
        return next((name for kind, name in known.items() if kind in kinds), "none")


def sample_head(
    seed: int, index: int, disease: Disease = "none", age_range: tuple[float, float] = AGE_RANGE, *,
    nerves: bool = False,
) -> Head:  # fmt: skip
    """Draw participant ``index`` of the cohort ``seed``; the same arguments always give the same head.

    Args:
        seed: of the cohort, non-negative.
        index: of the participant, non-negative.
        disease: what the participant has.
        age_range: youngest and oldest, years.
        nerves: draw the trigeminal nerves too.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, 4711]))
    male = bool(rng.random() < 0.5)
    age = float(rng.uniform(*age_range))
    old = (age - _MIDDLE) / _HALF
    late = max(0.0, old)
    size = (1.03 if male else 0.97) * float(np.exp(rng.normal(0.0, 0.025)))
    sx, sy, sz = (size * float(np.exp(rng.normal(0.0, 0.02))) for _ in range(3))
    head = Head(
        seed=seed, index=index, male=male, age_years=age, scale=(sx, sy, sz),
        ventricles=float(np.exp(0.30 * old + 0.20 * late**2 + rng.normal(0.0, 0.10))),
        cortex_mm=2.8 - 0.45 * old + float(rng.normal(0.0, 0.10)),
        sulci_mm=float(np.exp(np.log(0.7) + 0.55 * old + rng.normal(0.0, 0.12))),
        gap_mm=max(0.8, 2.2 + 1.1 * old + 0.8 * late + float(rng.normal(0.0, 0.3))),
        hippocampus=1.0 - 0.05 * old - 0.12 * late**2 + float(rng.normal(0.0, 0.03)),
        iron=float(np.exp(0.25 * old + rng.normal(0.0, 0.1))),
        white_matter=float(np.clip(0.12 + 0.2 * old + 0.4 * late**2 + rng.normal(0.0, 0.1), 0.0, 1.0)),
        skull_mm=float(rng.normal(6.5, 0.7)), scalp_mm=float(np.clip(rng.normal(6.0, 1.2), 3.5, 10.0)),
        asymmetry=float(rng.normal(0.0, 0.06)),
        pose=tuple(float(v) for v in (*rng.normal(0.0, 0.06, 3), *rng.normal(0.0, 3.0, 3))),  # type: ignore[arg-type]
        lesion_water=(float(np.exp(rng.normal(0.0, 0.10))), float(np.exp(rng.normal(0.0, 0.10)))),
        lesions=(*_lesions_of(rng, disease), *_old_lesions(rng, late)),
    )  # fmt: skip
    if not nerves:
        return head
    left, right = (float(v) for v in rng.normal(0.0, 1.2, 2))
    return replace(head, nerve_mm=float(rng.uniform(2.0, 2.6)), nerve_bend_mm=(left, right))


def _lesions_of(rng: Generator, disease: Disease) -> tuple[Lesion, ...]:
    if disease == "infarct":
        side = -1.0 if rng.random() < 0.5 else 1.0
        centre, spread, (low, high) = _TERRITORIES[int(rng.integers(len(_TERRITORIES)))]
        x, y, z = (float(c + s * rng.uniform(-1.0, 1.0)) for c, s in zip(centre, spread, strict=True))
        main = Lesion(INFARCT, (side * x, y, z), float(rng.uniform(low, high)))
        if rng.random() < 0.7:
            return (main,)
        x, y, z = (v + float(rng.normal(0.0, 9.0)) for v in main.centre_mm)
        return main, Lesion(INFARCT, (x, y, z), float(rng.uniform(3.0, 0.5 * main.radius_mm + 2.0)))
    if disease == "meningioma":
        return (Lesion(MENINGIOMA, _dural_place(rng), float(np.exp(rng.uniform(np.log(10.0), np.log(24.0))))),)
    return _malformed(rng) if disease == "polymicrogyria" else ()


def _malformed(rng: Generator) -> tuple[Lesion, ...]:
    """Regions of polymicrogyria: mostly around the lateral fissures, often on both sides."""
    centre = (52.0, -6.0, 4.0) if rng.random() < _PERISYLVIAN else (36.0, 44.0, 18.0)
    sides = (-1.0, 1.0) if rng.random() < _BOTH_SIDES else (-1.0 if rng.random() < 0.5 else 1.0,)
    found = []
    for side in sides:
        x, y, z = (float(c + s * rng.normal()) for c, s in zip(centre, (2.0, 8.0, 5.0), strict=True))
        found.append(Lesion(POLYMICROGYRIA, (side * x, y, z), float(rng.uniform(26.0, 40.0))))
    return tuple(found)


def _dural_place(rng: Generator) -> tuple[float, float, float]:
    """A place at the falx or on the vault; the renderer moves it onto the dura."""
    if rng.random() < 0.3:
        return (
            3.0 * (1.0 if rng.random() < 0.5 else -1.0),
            float(rng.uniform(-60.0, 58.0)),
            float(rng.uniform(38.0, 60.0)),
        )
    while True:
        x, y, z = (float(v) for v in rng.normal(size=3))
        length = float(np.sqrt(x * x + y * y + z * z))
        if z / length > -0.25 and abs(x) / length > 0.25:
            return 90.0 * x / length, 90.0 * y / length, 90.0 * z / length


def _old_lesions(rng: Generator, late: float) -> tuple[Lesion, ...]:
    """Old lacunes and microbleeds, more of them in the old; both occur without an acute infarct."""
    found = []
    for kind, mean, (low, high) in ((LACUNE, 1.4 * late, (2.5, 5.5)), (BLEED, 0.3 + 1.2 * late, (1.5, 3.0))):
        for _ in range(int(rng.poisson(mean))):
            place = float(rng.uniform(-34.0, 34.0)), float(rng.uniform(-45.0, 40.0)), float(rng.uniform(0.0, 34.0))
            found.append(Lesion(kind, place, float(rng.uniform(low, high))))
    return tuple(found)
