"""Relations between targets: parts and totals, left and right, one quantity by two instruments.

Networks estimate targets one by one. A scan whose estimates break a relation far more than those of ordinary scans do
was probably misread. A rule's residual is the difference of its two sides, each a weighted sum of targets. It is
judged in standard deviations, which follow from those of the scan's estimates; how large they get in ordinary scans is
part of a module's reference (``ukb_infer.modules.plausibility``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rule:
    """Two sides that are alike, or of which the first is at most the second.

    Attributes:
        left: factor of each target, summed; ``right`` likewise.
        kind: ``equal`` or ``at_most``.
    """

    left: Mapping[str, float]
    right: Mapping[str, float]
    kind: Literal["equal", "at_most"] = "equal"

    @property
    def targets(self) -> frozenset[str]:
        """All targets it needs."""
        return frozenset(self.left) | frozenset(self.right)

    @property
    def words(self) -> str:
        """The rule as text: ``DxaArmsFatMass = DxaArmFatMassLeft + DxaArmFatMassRight``."""
        return f"{_side(self.left)} {'=' if self.kind == 'equal' else '<='} {_side(self.right)}"

    def residual(self, names: Sequence[str], means: NDArray[np.float64]) -> NDArray[np.float64]:
        """First side minus second side.

        Args:
            names: of T targets, among them all of the rule.
            means: (N, T) estimates, natural units.

        Returns:
            (N,).
        """
        return np.asarray(means @ self._factors(names))

    def standard_deviation(self, names: Sequence[str], variances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the residual, were the errors of its targets independent.

        Args:
            names: of T targets, among them all of the rule.
            variances: (N, T) of the estimates, natural units squared.

        Returns:
            (N,).
        """
        return np.asarray(np.sqrt(variances @ self._factors(names) ** 2))

    def _factors(self, names: Sequence[str]) -> NDArray[np.float64]:
        """(T,) weights of the residual."""
        return np.array([self.left.get(n, 0.0) - self.right.get(n, 0.0) for n in names])


def _side(factors: Mapping[str, float]) -> str:
    return " + ".join(name if factor == 1.0 else f"{factor:g} {name}" for name, factor in factors.items())


def _rules() -> Iterator[Rule]:
    def same(one: str, *others: str) -> Rule:
        return Rule({one: 1.0}, dict.fromkeys(others, 1.0))

    for limb in ("Arm", "Leg"):
        for what in ("FatMass", "LeanMass", "TotalMass"):
            sides = [f"Dxa{limb}{what}{side}" for side in ("Left", "Right")]
            yield from (same(f"Dxa{limb}s{what}", *sides), same(*sides))
        yield same(*(f"Dxa{limb}TissueFatPercentage{side}" for side in ("Left", "Right")))
    for part in ("Anterior", "Posterior"):
        yield same(*(f"Atlas{part}ThighLeanMuscle{side}" for side in ("Left", "Right")))
    thighs = [f"Atlas{part}ThighLeanMuscle{side}" for part in ("Anterior", "Posterior") for side in ("Left", "Right")]
    yield same("AtlasTotalThighMuscleVolume", *thighs)
    for region in ("Android", "Gynoid"):
        parts = {f"Dxa{region}FatMass": 1.0, f"Dxa{region}LeanMass": 1.0, f"Dxa{region}BoneMass": 1e-3}  # bone in g
        yield Rule({f"Dxa{region}TotalMass": 1.0}, parts)
    yield same("DxaTotalTissueMass", "DxaTotalFatMass", "DxaTotalLeanMass")
    yield Rule({"DxaTotalLeanMass": 1.0}, {"DxaTotalFatFreeMass": 1.0}, "at_most")
    for what in ("FatMass", "LeanMass"):
        parts = dict.fromkeys((f"Dxa{region}{what}" for region in ("Trunk", "Arms", "Legs")), 1.0)
        yield Rule(parts, {f"DxaTotal{what}": 1.0}, "at_most")
    yield Rule({"DxaTotalFatMass": 1.0, "DxaTotalFatFreeMass": 1.0}, {"weight": 1.0})
    yield same("DxaVatVolume", "AtlasVatVolume")
    yield Rule({"DxaTotalFatMass": 1.0}, {"AtlasTotalAdiposeTissueVolume": 0.9})  # kg of fat a litre
    yield Rule({"AtlasVatVolume": 1.0, "AtlasAsatVolume": 1.0}, {"AtlasTotalAdiposeTissueVolume": 1.0}, "at_most")
    yield same("AtlasLiverFat", "liverFat")
    yield Rule({"sittingHeight": 1.0}, {"height": 0.65}, "at_most")
    yield Rule({"height": 0.42}, {"sittingHeight": 1.0}, "at_most")


#: All rules by their words.
RULES: dict[str, Rule] = {rule.words: rule for rule in _rules()}


def rules_of(names: Sequence[str]) -> list[Rule]:
    """The rules whose targets are all among some names."""
    return [rule for rule in RULES.values() if rule.targets <= set(names)]
