"""Registry of the 72 targets.

Names, UK Biobank fields, units, groups and the published accuracy come from the validation and testing tables
published with MIMIR (10-fold cross-validation on UK Biobank; a later test release for 12 targets). They describe the
published networks on people and say nothing about any other module. Physical limits follow from the unit;
plausible ranges are generous bounds for adults of 40 to 85 years, used to recognize labels in the wrong unit.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from ukb_infer.errors import UsageError
from ukb_infer.text import suggest


@dataclass(frozen=True)
class PublishedAccuracy:
    """Accuracy published for MIMIR, on people; None where not published.

    Attributes:
        cv_n: participants in 10-fold cross-validation; ``cv_icc``, ``cv_r2``, ``cv_mae`` (unit of the target),
            ``cv_mape_percent``, ``cv_auc`` its results.
        test_n: participants of the later test release, ``test_icc`` ... its results.
    """

    cv_n: int | None = None
    cv_icc: float | None = None
    cv_r2: float | None = None
    cv_mae: float | None = None
    cv_mape_percent: float | None = None
    test_n: int | None = None
    test_icc: float | None = None
    test_r2: float | None = None
    test_mae: float | None = None
    test_mape_percent: float | None = None
    cv_auc: float | None = None


@dataclass(frozen=True)
class TargetSpec:
    """A quantity to predict.

    Attributes:
        name: name used in columns, modules and labels, e.g. ``liverVolume``.
        field: UK Biobank field number as text, "" if the target has none.
        unit: natural unit of estimates.
        group: group of the published table.
        kind: ``continuous``, or ``binary`` (regressed as 0/1).
        lower: physical lower limit, or None.
        upper: physical upper limit, or None.
        plausible_min: lower end of plausible adult values.
        plausible_max: upper end of plausible adult values.
        published: accuracy published for MIMIR.
    """

    name: str
    field: str
    unit: str
    group: str
    kind: Literal["continuous", "binary"]
    lower: float | None
    upper: float | None
    plausible_min: float | None = None
    plausible_max: float | None = None
    published: PublishedAccuracy = PublishedAccuracy()

    @property
    def is_binary(self) -> bool:
        """Whether the target is a 0/1 class."""
        return self.kind == "binary"


def _number(text: str) -> float | None:
    return float(text) if text else None


def _count(text: str) -> int | None:
    return int(text) if text else None


def _published(row: dict[str, str]) -> PublishedAccuracy:
    values = {name: _number(row[name]) for name in row if name.startswith(("cv_", "test_")) and not name.endswith("_n")}
    return PublishedAccuracy(cv_n=_count(row["cv_n"]), test_n=_count(row["test_n"]), **values)


def registry_csv() -> str:
    """The whole registry as CSV text: name, field, unit, group, limits, plausible range, published accuracy."""
    return resources.files(__package__).joinpath("targets.csv").read_text(encoding="utf-8")


def _read_table() -> dict[str, TargetSpec]:
    table = {}
    for row in csv.DictReader(registry_csv().splitlines()):
        kind: Literal["continuous", "binary"] = "binary" if row["kind"] == "binary" else "continuous"
        table[row["name"]] = TargetSpec(
            name=row["name"], field=row["ukb_field"], unit=row["unit"], group=row["group"], kind=kind,
            lower=_number(row["lower_limit"]), upper=_number(row["upper_limit"]),
            plausible_min=_number(row["plausible_min"]), plausible_max=_number(row["plausible_max"]),
            published=_published(row),
        )  # fmt: skip
    return table


#: All 72 targets by name, in the order of the published tables.
TARGETS: dict[str, TargetSpec] = _read_table()


def get_target(name: str) -> TargetSpec:
    """Target by exact name.

    Raises:
        UsageError: unknown target; the message suggests the nearest.
    """
    if name not in TARGETS:
        raise UsageError(f"unknown target {name!r}{suggest(name, TARGETS)} (`ukb-infer targets` lists all)")
    return TARGETS[name]


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


#: Fields of targets for which the published table states none.
OTHER_FIELDS = {"21003": "age"}


def spec_of_field(field: str, targets: Mapping[str, TargetSpec]) -> TargetSpec | None:
    """The target that a UK Biobank field measures.

    Args:
        field: number as text, e.g. ``21002``.
        targets: to choose from, by name.
    """
    stated = next((spec for spec in targets.values() if field and spec.field == field), None)
    return stated or targets.get(OTHER_FIELDS.get(field, ""))


def fields_of(spec: TargetSpec) -> list[str]:
    """All fields whose columns are labels of a target."""
    others = [field for field, name in OTHER_FIELDS.items() if name == spec.name]
    return [spec.field, *others] if spec.field else others


def find_target(name: str = "", field: str = "") -> TargetSpec | None:
    """Target by UK Biobank field, else by name ignoring case and punctuation.

    Args:
        name: of the target, or "".
        field: ``22407``, ``p22407`` or ``22407-2.0``, or "".

    Returns:
        The target, or None if neither matches.
    """
    number = field.split("-")[0].strip().removeprefix("p")
    if spec := spec_of_field(number, TARGETS):
        return spec
    plain = _plain(name)
    return next((spec for spec in TARGETS.values() if plain and _plain(spec.name) == plain), None)
