"""The population of phantoms: latent variables drawn from plausible distributions.

The numbers are round values for adults of 45 to 82 years, chosen to resemble a population cohort; they describe no
real person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from ukb_infer.errors import UsageError

#: Spread of the pulse rate that no image shows, bpm (one standard deviation).
PULSE_RATE_IRREDUCIBLE_SD_BPM = 9.0
#: Spread of grip strength that muscle volume does not explain, kg.
GRIP_STRENGTH_IRREDUCIBLE_SD_KG = 5.0

#: The same by target name, in the registry's units.
_IRREDUCIBLE_SD = {"pulseRate": PULSE_RATE_IRREDUCIBLE_SD_BPM, "gripStrengthRight": GRIP_STRENGTH_IRREDUCIBLE_SD_KG}


@dataclass(frozen=True)
class Subject:
    """Latent variables of one synthetic participant.

    Attributes:
        seed: seed of the cohort; ``index``: number of the subject in it.
        male: sex.
        age_years: age.
        height_mm: standing height.
        leg_share: knee and hip landmarks relative to the average (1 = average).
        frame: skeletal and trunk breadth relative to the average.
        muscle: muscle radius relative to the average.
        adiposity: subcutaneous fat thickness relative to the average.
        android: distribution of subcutaneous fat, > 0 trunk, < 0 hips and thighs.
        visceral: visceral fat relative to the average.
        liver_fat: fat fraction of the liver in [0, 1].
        muscle_fat: fat fraction of muscle in [0, 1].
        liver_scale, kidney_scale, heart_scale: linear organ size relative to the average.
        bone: bone mass relative to the average.
        arm_left, arm_right, leg_left, leg_right: radius of each limb's lean part relative to the average.
        leg_spread: distance of the legs relative to the average.
        arm_gap_mm: gap between arm and trunk.
        offset_x_mm, offset_z_mm: position in the scanner.
        lean_x: tilt of the trunk's axis, mm sideways per mm of height.
        noise: standard normal draws behind the irreducible parts: pulse, grip, diabetes (uniform), two spare.
    """

    seed: int
    index: int
    male: bool
    age_years: float
    height_mm: float
    leg_share: float
    frame: float
    muscle: float
    adiposity: float
    android: float
    visceral: float
    liver_fat: float
    muscle_fat: float
    liver_scale: float
    kidney_scale: float
    heart_scale: float
    bone: float
    arm_left: float
    arm_right: float
    leg_left: float
    leg_right: float
    leg_spread: float
    arm_gap_mm: float
    offset_x_mm: float
    offset_z_mm: float
    lean_x: float
    noise: tuple[float, float, float, float, float]


def _lognormal(rng: Generator, sd: float) -> float:
    return float(np.exp(rng.normal(0.0, sd)))


def irreducible_sd(name: str) -> float:
    """Standard deviation that no image of a phantom explains, in the target's unit.

    Args:
        name: ``pulseRate`` or ``gripStrengthRight``, the targets with an additive part of known spread.

    Raises:
        UsageError: another target; the message lists the valid ones.
    """
    if name not in _IRREDUCIBLE_SD:
        raise UsageError(f"no irreducible spread is defined for {name!r}, only for {', '.join(_IRREDUCIBLE_SD)}")
    return _IRREDUCIBLE_SD[name]


def sample_subject(seed: int, index: int) -> Subject:
    """Draw subject ``index`` of the cohort ``seed``; the same pair always gives the same subject.

    Args:
        seed: cohort seed, non-negative.
        index: number of the subject, non-negative.

    Returns:
        The latent variables.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    male = bool(rng.random() < 0.48)
    age = float(rng.uniform(45.0, 82.0))
    elderly = (age - 63.5) / 10.7
    adiposity = _lognormal(rng, 0.34) * (0.9 if male else 1.42)
    muscle = (1.06 if male else 0.99) * float(np.exp(rng.normal(-0.018 * elderly, 0.045)))
    android = float(rng.normal(0.35 if male else -0.35, 0.45))
    visceral = (1.25 if male else 0.8) * adiposity**0.8 / (0.92 if male else 1.32) * _lognormal(rng, 0.3)
    visceral *= float(np.exp(0.08 * elderly))
    liver_fat = min(0.42, 0.045 * visceral**0.9 * _lognormal(rng, 0.55))
    muscle_fat = min(0.3, 0.075 * float(np.exp(0.28 * elderly + rng.normal(0.0, 0.12))))
    limbs = [_lognormal(rng, 0.018) for _ in range(4)]
    return Subject(
        seed=seed,
        index=index,
        male=male,
        age_years=age,
        height_mm=float(rng.normal(1762.0, 66.0) if male else rng.normal(1628.0, 62.0)) - 3.0 * elderly,
        leg_share=float(rng.normal(1.0, 0.012)),
        frame=(1.03 if male else 0.99) * _lognormal(rng, 0.028),
        muscle=muscle,
        adiposity=adiposity,
        android=android,
        visceral=visceral,
        liver_fat=liver_fat,
        muscle_fat=muscle_fat,
        liver_scale=(1.02 if male else 0.97) * _lognormal(rng, 0.055),
        kidney_scale=(1.03 if male else 0.97) * float(np.exp(rng.normal(-0.02 * elderly, 0.05))),
        heart_scale=(1.03 if male else 0.96) * _lognormal(rng, 0.05),
        bone=(1.1 if male else 0.9) * float(np.exp(rng.normal(-0.06 * elderly, 0.07))),
        arm_left=limbs[0] * 0.99,
        arm_right=limbs[1] * 1.01,
        leg_left=limbs[2],
        leg_right=limbs[3],
        leg_spread=_lognormal(rng, 0.05),
        arm_gap_mm=float(rng.uniform(2.0, 16.0)),
        offset_x_mm=float(rng.normal(0.0, 6.0)),
        offset_z_mm=float(rng.normal(0.0, 9.0)),
        lean_x=float(rng.normal(0.0, 0.008)),
        noise=(float(rng.normal()), float(rng.normal()), float(rng.random()), float(rng.normal()), float(rng.normal())),
    )
