"""The 72 true values of a phantom, computed from the tissue model itself.

Volumes are counted on a coarse grid over the whole body, including parts outside the field of view (shanks, hands); the
head and feet, which are not modelled, add a fixed share that depends on height and sex. Masses use standard densities.
An irreducible part is added where an image shows nothing (pulse rate, grip strength, diabetes, bone mineral,
instrument noise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.compiling import compiled
from ukb_infer.phantom.anatomy import CROTCH, HIP_JOINT, ILIAC_CREST, N_LABELS, Body, Region, Tissue, paint_level
from ukb_infer.phantom.population import GRIP_STRENGTH_IRREDUCIBLE_SD_KG, PULSE_RATE_IRREDUCIBLE_SD_BPM, Subject
from ukb_infer.targets import TARGETS

#: Densities, kg/L (Fidanza 1953 for fat; the usual two- and four-compartment values).
FAT_DENSITY, LEAN_DENSITY = 0.900, 1.055
#: Counting grid, mm.
STEP_MM, LEVEL_MM = 4.5, 6.0
#: Bone mineral share of the lean-and-bone mass, and its relative spread that the image does not show.
BONE_SHARE, BONE_IRREDUCIBLE_SD = 0.046, 0.06
#: Bone mineral of these parts relative to the whole body's share.
BONE_PART = {"Android": 0.36, "Gynoid": 0.68}
#: Relative instrument noise of DXA-like and atlas-like values.
INSTRUMENT_SD = 0.008
#: Relative noise of a tape measure.
TAPE_SD = 0.005
#: Part of the visceral fat that DXA detects.
DXA_VAT_SHARE = 0.45

#: Targets determined by the anatomy, except for instrument noise; the others have a large part that no image shows.
NOT_DETERMINED = frozenset(
    {"pulseRate", "gripStrengthRight", "type2Diabetes", "age", "DxaAndroidBoneMass", "DxaGynoidBoneMass"}
)
ANATOMY_DETERMINED = frozenset(TARGETS) - NOT_DETERMINED

Counts = NDArray[np.float64]


@compiled
def _count_levels(
    shapes: Any, z_mm: Any, x0_mm: Any, y0_mm: Any, step_mm: Any, seed: Any, rows: Any, cols: Any, counts: Any
) -> None:
    """Count voxels of every label per level: ``counts`` (levels, labels) int64, in place."""
    labels = np.empty((rows, cols), np.uint8)
    for k in range(z_mm.shape[0]):
        labels[:] = 0
        paint_level(shapes[k], z_mm[k], x0_mm, y0_mm, step_mm, seed, labels)
        for r in range(rows):
            for c in range(cols):
                counts[k, labels[r, c]] += 1


class TissueVolumes:
    """Litres of every tissue per level of one subject.

    Attributes:
        height: (levels,) height as a fraction of the average body's.
        litres: (levels, N_LABELS) float64.
    """

    def __init__(self, subject: Subject) -> None:
        z = np.arange(0.03 * subject.height_mm, 0.888 * subject.height_mm, LEVEL_MM)
        body = Body(subject, z)
        counts = np.zeros((z.size, N_LABELS), np.int64)
        size = int(450 / STEP_MM), int(720 / STEP_MM)
        _count_levels(body.shapes(), z, -360.0, -90.0, STEP_MM, subject.index % 1000, *size, counts)
        self.height = body.h
        self.circumference_m = self._circumference(body)
        self.litres = counts * (STEP_MM * STEP_MM * LEVEL_MM * 1e-6)

    @staticmethod
    def _circumference(body: Body) -> Counts:
        """Ramanujan's perimeter of the trunk's outline, with a factor for its squareness, m: (levels,)."""
        a, b = body.outer_a, body.outer_b
        h = ((a - b) / (a + b)) ** 2
        perimeter: Counts = 1.02 * math.pi * (a + b) * (1.0 + 3.0 * h / (10.0 + np.sqrt(4.0 - 3.0 * h))) * 1e-3
        return perimeter

    def sum(
        self, tissues: tuple[Tissue, ...], regions: tuple[Region, ...], low: float = 0.0, high: float = 1.0
    ) -> float:
        """Litres of tissues in regions between two heights.

        Args:
            tissues: to sum.
            regions: to include.
            low: lower height, a fraction of the average body's; inclusive.
            high: upper height likewise; exclusive.
        """
        labels = [16 * r + t for r in regions for t in tissues]
        levels = (self.height >= low) & (self.height < high)
        return float(self.litres[levels][:, labels].sum())

    def at(self, fraction: float, values: Counts) -> float:
        """Value at a height.

        Args:
            fraction: the height as a fraction of the average body's.
            values: (levels,) to interpolate linearly.
        """
        order = np.argsort(self.height)
        return float(np.interp(fraction, self.height[order], values[order]))


_FAT = (Tissue.SUBCUTANEOUS_FAT, Tissue.VISCERAL_FAT)
_MUSCLE = (Tissue.MUSCLE, Tissue.ANTERIOR_THIGH_MUSCLE, Tissue.POSTERIOR_THIGH_MUSCLE)
_ORGANS = (Tissue.LIVER, Tissue.KIDNEY, Tissue.HEART, Tissue.BOWEL, Tissue.SPLEEN, Tissue.BLADDER)
_BONE = (Tissue.MARROW, Tissue.CORTICAL_BONE)
_TRUNK = (Region.TRUNK,)
_ARMS, _LEGS = (Region.ARM_LEFT, Region.ARM_RIGHT), (Region.LEG_LEFT, Region.LEG_RIGHT)
_BODY = (*_TRUNK, *_ARMS, *_LEGS)


@dataclass(frozen=True)
class _Composition:
    """Fat, lean and bone of one part of the body, kg."""

    fat: float
    lean: float
    bone: float

    @property
    def tissue(self) -> float:
        return self.fat + self.lean

    @property
    def fat_percent(self) -> float:
        return 100.0 * self.fat / self.tissue

    def __add__(self, other: _Composition) -> _Composition:
        return _Composition(self.fat + other.fat, self.lean + other.lean, self.bone + other.bone)


def _composition(
    subject: Subject, volumes: TissueVolumes, regions: tuple[Region, ...], low: float = 0.0, high: float = 1.0
) -> _Composition:
    muscle = volumes.sum(_MUSCLE, regions, low, high)
    liver = volumes.sum((Tissue.LIVER,), regions, low, high)
    organs = volumes.sum(_ORGANS, regions, low, high) - liver
    bones = volumes.sum(_BONE, regions, low, high)
    fat = volumes.sum(_FAT, regions, low, high) + subject.muscle_fat * muscle + subject.liver_fat * liver
    lean = (1.0 - subject.muscle_fat) * muscle + (1.0 - subject.liver_fat) * liver + organs
    lung = 0.25 * volumes.sum((Tissue.LUNG,), regions, low, high)
    bone_mass = BONE_SHARE * (lean + bones) * LEAN_DENSITY * subject.bone
    marrow_lean = max(0.0, bones * LEAN_DENSITY - bone_mass)
    return _Composition(fat * FAT_DENSITY, (lean + lung) * LEAN_DENSITY + marrow_lean, bone_mass)


def _head(subject: Subject) -> _Composition:
    """Head, fingertips and feet, which the model omits."""
    size = (subject.height_mm / 1750.0) ** 2
    return _Composition(1.1 * size, (4.9 if subject.male else 4.3) * size, 0.5 * subject.bone * size)


def _dxa_limbs(parts: dict[str, _Composition]) -> dict[str, float]:
    values: dict[str, float] = {}
    for limb in ("Arm", "Leg"):
        left, right = parts[f"{limb}Left"], parts[f"{limb}Right"]
        for side, part in (("Left", left), ("Right", right)):
            values[f"Dxa{limb}FatMass{side}"] = part.fat
            values[f"Dxa{limb}LeanMass{side}"] = part.lean
            values[f"Dxa{limb}TissueFatPercentage{side}"] = part.fat_percent
            values[f"Dxa{limb}TotalMass{side}"] = part.tissue + part.bone
        both = left + right
        values[f"Dxa{limb}sFatMass"], values[f"Dxa{limb}sLeanMass"] = both.fat, both.lean
        values[f"Dxa{limb}sTissueFatPercentage"] = both.fat_percent
        values[f"Dxa{limb}sTotalMass"] = both.tissue + both.bone
    return values


def _dxa_trunk(parts: dict[str, _Composition], vat_litres: float) -> dict[str, float]:
    values: dict[str, float] = {}
    for name in ("Android", "Gynoid", "Trunk"):
        part = parts[name]
        values[f"Dxa{name}FatMass"], values[f"Dxa{name}LeanMass"] = part.fat, part.lean
        values[f"Dxa{name}TissueFatPercentage"] = part.fat_percent
        values[f"Dxa{name}TotalMass"] = part.tissue + part.bone
    for name in ("Android", "Gynoid"):
        values[f"Dxa{name}BoneMass"] = 1000.0 * BONE_PART[name] * parts[name].bone
    whole = parts["Whole"]
    values["DxaTotalFatMass"], values["DxaTotalLeanMass"] = whole.fat, whole.lean
    values["DxaTotalFatFreeMass"] = whole.lean + whole.bone
    values["DxaTotalTissueFatPercentage"], values["DxaTotalTissueMass"] = whole.fat_percent, whole.tissue
    values["DxaVatVolume"] = vat_litres
    return values


def _atlas(subject: Subject, volumes: TissueVolumes, weight_kg: float, instrument: _Instrument) -> dict[str, float]:
    height_m = subject.height_mm / 1000.0
    measure = instrument.measure
    vat = measure(volumes.sum((Tissue.VISCERAL_FAT,), _TRUNK))
    asat = measure(volumes.sum((Tissue.SUBCUTANEOUS_FAT,), _TRUNK, HIP_JOINT, 0.72))
    trunk_fat = measure(volumes.sum(_FAT, _TRUNK, CROTCH, 0.80))
    lean = 1.0 - subject.muscle_fat
    thigh = {
        (name, side): measure(lean * volumes.sum((tissue,), (region,)))
        for name, tissue in (("Anterior", Tissue.ANTERIOR_THIGH_MUSCLE), ("Posterior", Tissue.POSTERIOR_THIGH_MUSCLE))
        for side, region in (("Left", Region.LEG_LEFT), ("Right", Region.LEG_RIGHT))
    }
    values = {f"Atlas{n}ThighLeanMuscle{s}": litres for (n, s), litres in thigh.items()}
    muscle = sum(thigh.values())
    values |= {
        "AtlasTotalThighMuscleVolume": muscle,
        "AtlasVatVolume": vat,
        "AtlasAsatVolume": asat,
        "AtlasAbdominalFatRatio": (vat + asat) / (vat + asat + muscle),
        "AtlasTotalAbdominalAdiposeTissueIndex": (vat + asat) / height_m**2,
        "AtlasTotalTrunkFat": trunk_fat,
        "AtlasTotalAdiposeTissueVolume": measure(volumes.sum(_FAT, _BODY, 0.30, 0.80)),
        "AtlasTotalLeanTissueVolume": measure(lean * volumes.sum(_MUSCLE, _BODY, 0.30, 0.80)),
        "AtlasWeightToMuscleRatio": weight_kg / muscle,
        "AtlasMuscleFat": measure(100.0 * subject.muscle_fat),
        "AtlasLiverFat": measure(100.0 * subject.liver_fat),
    }
    return values


def _latent(subject: Subject, values: dict[str, float]) -> dict[str, float]:
    """Targets with a large part that no image shows."""
    pulse, grip, diabetes, _, _ = subject.noise
    vat, liver = values["AtlasVatVolume"], values["AtlasLiverFat"]
    logit = -4.0 + 0.55 * (vat - 3.0) + 0.06 * (liver - 5.0) + 0.05 * (subject.age_years - 63.0)
    arm = values["DxaArmLeanMassRight"]
    return {
        "age": subject.age_years,
        "sex": float(subject.male),
        "pulseRate": max(38.0, 67.0 + 0.9 * (vat - 3.5) + PULSE_RATE_IRREDUCIBLE_SD_BPM * pulse),
        "gripStrengthRight": max(
            4.0, 9.0 + 8.2 * arm - 0.18 * (subject.age_years - 63.0) + GRIP_STRENGTH_IRREDUCIBLE_SD_KG * grip
        ),
        "type2Diabetes": float(diabetes < 1.0 / (1.0 + math.exp(-logit))),
    }


class _Instrument:
    """Relative measurement noise of one subject; draws are limited to four standard deviations."""

    def __init__(self, subject: Subject) -> None:
        self._rng = np.random.default_rng(np.random.SeedSequence([subject.seed, subject.index, 99]))

    def measure(self, value: float, relative_sd: float = INSTRUMENT_SD) -> float:
        """A value as measured by an instrument.

        Args:
            value: the true one.
            relative_sd: standard deviation of the noise as a part of the value.
        """
        return value * (1.0 + relative_sd * float(np.clip(self._rng.normal(), -4.0, 4.0)))

    def scan(self, part: _Composition) -> _Composition:
        """A part of the body as measured by DXA."""
        bone = self.measure(part.bone, BONE_IRREDUCIBLE_SD)
        return _Composition(self.measure(part.fat), self.measure(part.lean), bone)


def truths(subject: Subject) -> dict[str, float]:
    """True values of all 72 targets in the registry's units and order.

    Args:
        subject: the latent variables.

    Returns:
        Name to value; the same subject always gives the same values.
    """
    volumes, instrument = TissueVolumes(subject), _Instrument(subject)
    measure = instrument.measure
    limbs = {
        "ArmLeft": _composition(subject, volumes, (Region.ARM_LEFT,)),
        "ArmRight": _composition(subject, volumes, (Region.ARM_RIGHT,)),
        "LegLeft": _composition(subject, volumes, (Region.LEG_LEFT,)),
        "LegRight": _composition(subject, volumes, (Region.LEG_RIGHT,)),
        "Trunk": _composition(subject, volumes, _TRUNK),
    }
    head = _head(subject)
    body = sum(limbs.values(), head)
    weight = body.tissue + body.bone + 0.6
    parts = {name: instrument.scan(part) for name, part in limbs.items()}
    parts["Whole"] = sum(parts.values(), head)
    iliac = (ILIAC_CREST, ILIAC_CREST + 0.05)
    parts["Android"] = instrument.scan(_composition(subject, volumes, _TRUNK, *iliac))
    parts["Gynoid"] = instrument.scan(_composition(subject, volumes, (*_TRUNK, *_LEGS), 0.43, 0.545))
    vat = measure(DXA_VAT_SHARE * volumes.sum((Tissue.VISCERAL_FAT,), _TRUNK))
    values = _dxa_limbs(parts) | _dxa_trunk(parts, vat) | _atlas(subject, volumes, weight, instrument)
    values |= {
        "weight": weight,
        "height": subject.height_mm / 10.0,
        "sittingHeight": measure(subject.height_mm / 10.0 * (1.0 - 0.478 * subject.leg_share), TAPE_SD),
        "waist": measure(100.0 * volumes.at(0.645, volumes.circumference_m), TAPE_SD),
        "hip": measure(100.0 * volumes.at(HIP_JOINT, volumes.circumference_m), TAPE_SD),
        "liverVolume": measure(volumes.sum((Tissue.LIVER,), _TRUNK)),
        "kidneyParenchymalVolume": measure(volumes.sum((Tissue.KIDNEY,), _TRUNK)),
        "liverFat": measure(100.0 * subject.liver_fat * 0.97 + 0.1),
    }
    values |= _latent(subject, values)
    return {name: values[name] for name in TARGETS}
