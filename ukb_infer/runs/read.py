"""The only reader of a run's tables; returns typed records."""

from __future__ import annotations

import csv
import json
import math
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import NotARunError, RunError, UsageError
from ukb_infer.labels import IdList, read_id_list
from ukb_infer.quality.registry import in_order, is_text
from ukb_infer.reasons import Reason
from ukb_infer.records import Measures, ScanKey, ScanResult
from ukb_infer.runs.columns import OOD_PERCENTILE, Column
from ukb_infer.runs.files import DERIVED, DICTIONARY, ESTIMATES, FACTS, QUALITY, SCANS
from ukb_infer.runs.tables import (
    DICTIONARY_COLUMNS,
    KEY_COLUMNS,
    KEY_TYPES,
    QUALITY_COLUMNS,
    SCAN_COLUMNS,
    SCHEMA_VERSION,
    plain_cell,
)
from ukb_infer.storage import from_plain

if TYPE_CHECKING:  # scans.csv is read without it
    import pandas as pd

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RunScan:
    """A row of ``scans.csv``.

    Attributes:
        key: of the scan; ``given``: its path as the user gave it.
        result: its result, with the measures of ``quality.csv``; fingerprint and digest are only in the journal.
        level: the gravest of its quality flags, "" without; ``affected``: targets that they affect.
    """

    key: ScanKey
    given: str
    result: ScanResult
    level: str = ""
    affected: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunTarget:
    """A target of the estimates, as described in ``run.json``."""

    name: str
    unit: str = ""
    field: str = ""
    kind: Literal["continuous", "binary"] = "continuous"


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Content of ``run.json``.

    Attributes:
        level: of the intervals; ``level_name``: as in the columns, e.g. ``ci95``.
        targets: of the estimates, in their order.
        modules: that made them (name, version, sha256, warning); ``configuration``: of the run; ``quality``: its
            limits; all as written.
    """

    level: float
    level_name: str
    targets: tuple[RunTarget, ...]
    modules: tuple[Mapping[str, Any], ...] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] | None = None

    @property
    def of_heads(self) -> bool:
        """Whether volumes were read, and not projections of bodies."""
        return str(self.configuration.get("recipe", "")).startswith("volumes ")

    @property
    def warning(self) -> str:
        """Warnings of the modules, in one line."""
        return "; ".join(m["warning"] for m in self.modules if m.get("warning"))


@dataclass(frozen=True, kw_only=True)
class TargetEstimates:
    """Estimates of one target: (N,) float64 in its unit, NaN where missing.

    In tables of this version a binary target has a probability but no sd or interval; others vice versa.
    """

    target: RunTarget
    mean: Float64
    sd: Float64
    lower: Float64
    upper: Float64
    probability: Float64


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder, read.

    Attributes:
        folder: of the run.
        scans: every row of ``scans.csv``; empty if the folder has no such table.
        table: ``estimates.csv``, key columns typed (eid and scan text, instance and array Int64); None for projections.
        facts: of ``run.json``; None for projections.
        dictionary: meaning and unit of the columns of ``table`` and of quality.
    """

    folder: Path
    scans: tuple[RunScan, ...] = ()
    table: pd.DataFrame | None = None
    facts: RunFacts | None = None
    dictionary: tuple[Column, ...] = ()

    @property
    def estimated(self) -> tuple[pd.DataFrame, RunFacts]:
        """Table and facts of a run of ``predict``.

        Raises:
            RunError: it has none.
        """
        if self.table is None or self.facts is None:
            raise RunError(f"{self.folder} has no estimates; expected a folder written by `ukb-infer predict`")
        return self.table, self.facts

    def usable(self) -> Run:
        """The run without the estimates that its quality flags rule out.

        Raises:
            RunError: it has no estimates, or nothing is known of its quality.
        """
        table, facts = self.estimated
        if len(table) and not (self.folder / QUALITY).is_file():
            raise RunError(
                f"{self.folder} has no {QUALITY}, so nothing says which estimates are for use: its scans were not "
                'measured (projections without measures, or an earlier version); use `quality`="all", or predict the '
                "scans again"
            )
        dropped = {scan.key.scan for scan in self.scans if scan.level == "unusable"}
        table = table[~table["scan"].isin(dropped)].reset_index(drop=True)
        for target in facts.targets:
            affected = table["scan"].isin({s.key.scan for s in self.scans if target.name in s.affected})
            own = [c for c in table if c in _columns_of(target.name, facts)]
            if affected.any():
                table[own] = table[own].mask(affected)
        return replace(self, table=table)

    def without(self, excluded: IdList) -> Run:
        """The run without the estimates of listed participants and scans.

        Raises:
            RunError: it has no estimates.
        """
        table, _ = self.estimated
        kept = [not excluded.holds(key) for key in self.keys]
        return replace(self, table=table[kept].reset_index(drop=True))

    @property
    def measure_names(self) -> tuple[str, ...]:
        """Measures of quality that any scan has, in the order of the registry."""
        names: set[str] = set()
        for scan in self.scans:
            measures = scan.result.measures
            names.update(measures.shared if isinstance(measures, PackedMeasures) else measures)
        return tuple(in_order(names))

    @property
    def keys(self) -> tuple[ScanKey, ...]:
        """(N,) scans of the estimates, in the order of the table."""
        import pandas as pd

        table, _ = self.estimated
        columns = (table[name].tolist() for name in KEY_COLUMNS)
        return tuple(
            ScanKey(eid, None if pd.isna(instance) else int(instance), None if pd.isna(array) else int(array), scan)
            for eid, instance, array, scan in zip(*columns, strict=True)
        )

    @property
    def ood_percentile(self) -> Float64:
        """(N,) outlier percentiles, 0-100; NaN where the modules could not tell."""
        table, _ = self.estimated
        return _numbers(table, self.folder, OOD_PERCENTILE, optional=True)

    def estimates(self, name: str) -> TargetEstimates:
        """Estimates of a target.

        Args:
            name: of the target.

        Raises:
            RunError: the table has none.
        """
        table, facts = self.estimated
        target = next((t for t in facts.targets if t.name == name), None)
        if target is None:
            raise RunError(
                f"{self.folder} has no estimates of {name!r}, only of {', '.join(t.name for t in facts.targets)}"
            )
        interval = {part: f"{facts.level_name}_{part}" for part in ("lower", "upper")}
        optional = ("sd", "lower", "upper") if target.kind == "binary" else ("probability",)

        def numbers(part: str) -> Float64:
            return _numbers(table, self.folder, f"{name}_{interval.get(part, part)}", optional=part in optional)

        parts = ("mean", "sd", "lower", "upper", "probability")
        return TargetEstimates(target=target, **{part: numbers(part) for part in parts})


def _columns_of(target: str, facts: RunFacts) -> set[str]:
    """Columns that a target may have."""
    interval = (f"{facts.level_name}_lower", f"{facts.level_name}_upper")
    return {f"{target}_{part}" for part in (*_PARTS, *interval)}


def read_run(folder: Path) -> Run:
    """Read the tables of a run, of this version of the program or an earlier one.

    Args:
        folder: written by ``predict``, ``project``, ``merge`` or ``export``.

    Raises:
        RunError: it has no tables, or damaged ones.
    """
    has_estimates = (folder / ESTIMATES).is_file() and (folder / FACTS).is_file()
    if not has_estimates and not (folder / SCANS).is_file():
        found = "has no tables" if folder.is_dir() else "is not a folder"
        raise NotARunError(f"{folder} {found}; expected a folder written by `ukb-infer predict` or `project`")
    scans = read_scans(folder) if (folder / SCANS).is_file() else ()
    if not has_estimates:
        return Run(folder=folder, scans=scans)
    facts, table = _read_facts(folder), _read_estimates(folder)
    return Run(folder=folder, scans=scans, table=table, facts=facts, dictionary=_read_dictionary(folder))


def read_scans(folder: Path) -> tuple[RunScan, ...]:
    """Read ``scans.csv``, and ``quality.csv`` if there is one; unknown codes are ignored.

    Args:
        folder: of the run.

    Raises:
        RunError: the table is missing, or one of them is damaged.
    """
    places: dict[str, int] = {}
    has_quality = (folder / QUALITY).is_file()
    quality = dict(_read_rows(folder / QUALITY, lambda row: _quality(row, places)) if has_quality else ())
    return _read_rows(folder / SCANS, lambda row: _scan(row, quality))


Row = dict[str, str | None]
Made = TypeVar("Made")


def _read_rows(path: Path, make: Callable[[Row], Made]) -> tuple[Made, ...]:
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            return tuple(make(row) for row in csv.DictReader(handle))
    except (OSError, ValueError, csv.Error) as error:
        raise _damaged(path, error) from error


class PackedMeasures(Mapping[str, float | str]):
    """Measures of a scan in a sixth of the memory that a dict takes, as there may be a biobank of them.

    Args:
        measures: of the scan, finite.
        places: of the names, shared by many scans; new names are added.
    """

    __slots__ = ("_numbers", "_places", "_words")

    def __init__(self, measures: Measures, places: dict[str, int]) -> None:
        for name in measures:
            places.setdefault(name, len(places))
        self._places = places
        self._words = {places[n]: sys.intern(v) for n, v in measures.items() if isinstance(v, str)}
        self._numbers = array("d", [math.nan]) * len(places)
        for name, value in measures.items():
            if isinstance(value, float):
                self._numbers[places[name]] = value

    @property
    def shared(self) -> Mapping[str, int]:
        """Names that any scan of the table has, with their places; one mapping for all scans."""
        return self._places

    def _at(self, place: int) -> float | str:
        """What has a place; NaN for nothing, also where the place is that of a later scan's name."""
        return self._words.get(place) or (self._numbers[place] if place < len(self._numbers) else math.nan)

    def __getitem__(self, name: str) -> float | str:
        """A measure."""
        value = self._at(self._places[name])
        if value != value:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        """Names of the measures that the scan has."""
        return (name for name, place in self._places.items() if (value := self._at(place)) == value)

    def __len__(self) -> int:
        """How many it has."""
        return sum(1 for _ in self)


Quality = tuple[str, tuple[str, ...], Measures]


def _quality(row: Row, places: dict[str, int]) -> tuple[str, Quality]:
    """Name of a scan; level, affected targets and measures; ``places`` gets the columns of the measures."""
    measures = {k: _measure(k, v) for k, v in row.items() if k and v and k not in KEY_COLUMNS + QUALITY_COLUMNS}
    affected = tuple(filter(None, (row.get("affected") or "").split(";")))
    return plain_cell(row.get("scan") or ""), (row.get("level") or "", affected, PackedMeasures(measures, places))


def _scan(row: Row, quality: Mapping[str, Quality]) -> RunScan:
    cells = {name: row.get(name) or "" for name in SCAN_COLUMNS}
    instance, array = (int(cells[name]) if cells[name] else None for name in ("instance", "array"))
    result: dict[str, Any] = {
        "status": cells["status"],
        "reasons": [code for code in cells["reasons"].split(";") if code in _CODES],
        "message": cells["message"],
        "stations": cells["stations"] if cells["stations"].isdecimal() else 0,
    }
    scan = plain_cell(cells["scan"])
    level, affected, measures = quality.get(scan, ("", (), {}))
    key = ScanKey(cells["eid"], instance, array, scan) if cells["eid"] else ScanKey.from_name(scan)
    return RunScan(
        key=key, given=plain_cell(cells["path"]), level=level, affected=affected,
        result=replace(from_plain(ScanResult, result), measures=measures),
    )  # fmt: skip


def _measure(name: str, cell: str) -> float | str:
    """A measure as it was: text if the registry says so, or if it is no number."""
    if not is_text(name):
        try:  # contextlib.suppress takes a third of the time of a biobank's table
            return float(cell)
        except ValueError:
            return plain_cell(cell)
    return plain_cell(cell)


#: What the columns of a target end in, besides the interval.
_PARTS = ("mean", "sd", "sd_aleatoric", "sd_epistemic", "probability", "class", "set")
_CODES = frozenset(reason.value for reason in Reason)


def _damaged(path: Path, error: Exception) -> RunError:
    return RunError(f"{path}: damaged ({error}); run the same `ukb-infer` command again")


def _read_facts(folder: Path) -> RunFacts:
    path = folder / FACTS
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        version = plain.get("schema_version")
        if version != SCHEMA_VERSION:
            raise RunError(f"{path}: version {version}, expected {SCHEMA_VERSION}; use the ukb-infer that wrote it")
        return from_plain(RunFacts, plain)
    except (OSError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error


def _read_estimates(folder: Path) -> pd.DataFrame:
    import pandas as pd

    path = folder / ESTIMATES
    try:
        table = pd.read_csv(path, dtype=KEY_TYPES, keep_default_na=False, na_values=[""])
        table["eid"] = table["eid"].fillna("")
        table["scan"] = table["scan"].map(plain_cell).astype("string")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    return table


def _read_dictionary(folder: Path) -> tuple[Column, ...]:
    path = folder / DICTIONARY
    if not path.is_file():
        return ()
    with path.open(newline="", encoding="utf-8") as handle:
        return tuple(Column(*(row.get(name) or "" for name in DICTIONARY_COLUMNS)) for row in csv.DictReader(handle))


def _numbers(table: pd.DataFrame, folder: Path, column: str, *, optional: bool) -> Float64:
    """(N,) numbers of a column."""
    if column not in table:
        if optional:
            return np.full(len(table), np.nan)
        raise _damaged(folder / ESTIMATES, KeyError(column))
    try:
        return np.asarray(table[column], np.float64)
    except (ValueError, TypeError) as error:
        raise _damaged(folder / ESTIMATES, error) from error


# -- for analysts ------------------------------------------------------------------------------------------------------


def read_estimates(
    run: str | Path,
    *,
    long: bool = False,
    columns: Literal["target", "field"] = "target",
    quality: Literal["all", "use"] = "all",
    zscores: bool = False,
    changes: bool = False,
    exclude: str | Path | Sequence[str | Path] = (),
) -> pd.DataFrame:
    """Read the estimates of a run into pandas.

    Args:
        run: folder written by ``predict``.
        long: one row per scan and target: eid, instance, array, scan, target, unit, mean, sd, lower, upper, level,
            probability. A binary target has a probability but no sd, lower or upper; others vice versa.
        columns: ``target`` keeps the columns of ``estimates.csv``, indexed by eid (text) and instance; ``field`` gives
            one row per eid with the means in columns like ``est_p21002_i2`` (``est_age_i2`` for a target without
            field); of several arrays the highest is used.
        quality: ``all`` estimates, or only those for ``use``: scans that quality flags call ``unusable`` are left out,
            affected targets are empty (a missing knee: those of the thigh).
        zscores: add ``<t>_z``, ``<t>_z_lower``, ``<t>_z_upper``, ``<t>_percentile`` and ``outside_reference`` from the
            ``zscores.csv`` that ``ukb-infer zscores`` wrote into the run.
        changes: add ``<t>_change`` and its like to the rows of the second visit, from ``changes.csv``, likewise.
        exclude: lists of participants or scans to leave out, or ratings that the report exported.

    Returns:
        The frame.

    Raises:
        RunError: the folder has no estimates, tables of another version, or not the table asked for.
        UsageError: ``long`` together with ``columns="field"``, or one of them with ``zscores`` or ``changes``; a list
            that cannot be read.
    """
    if (zscores or changes) and (long or columns == "field"):
        raise UsageError('`zscores` and `changes` come in the columns of `columns`="target" only; leave out `long`')
    if long and columns == "field":
        raise UsageError('`long` and `columns`="field" exclude each other; use one of them')
    if columns not in ("target", "field"):
        raise UsageError(f'`columns`: got {columns!r}, expected "target" or "field"')
    if quality not in ("all", "use"):
        raise UsageError(f'`quality`: got {quality!r}, expected "all" or "use"')
    found = read_run(Path(run))
    for path in [exclude] if isinstance(exclude, (str, Path)) else exclude:
        found = found.without(read_id_list(Path(path), f"`exclude` {path}"))
    found = found.usable() if quality == "use" else found
    for name in [name for name, wanted in zip(DERIVED, (zscores, changes), strict=True) if wanted]:
        found = _with_derived(found, name)
    return as_frame(found, long=long, by_field=columns == "field")


def _with_derived(run: Run, name: str) -> Run:
    """The run whose table has the columns of a derived table, too, by scan."""
    import pandas as pd

    table, _ = run.estimated
    path = run.folder / name
    if not path.is_file():
        command = name.removesuffix(".csv")
        raise RunError(f"{run.folder} has no {name}; `ukb-infer {command} {run.folder}` without --out writes it")
    try:
        made = pd.read_csv(path, dtype={"scan": "string"}).drop(columns=["eid", "instance", "array"], errors="ignore")
        joined = table.merge(made, on="scan", how="left", validate="one_to_one")
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error
    return replace(run, table=joined)


def as_frame(run: Run, *, long: bool = False, by_field: bool = False) -> pd.DataFrame:
    """The estimates of a run as returned by :func:`read_estimates`.

    Args:
        run: as read.
        long: one row per scan and target.
        by_field: one row per eid.
    """
    table, facts = run.estimated
    if long:
        return _long(run, table, facts)
    if by_field:
        return _by_field(table, facts)
    return table.set_index(["eid", "instance"]).sort_index().copy()  # in one piece: made by hundreds of insertions


def _long(run: Run, table: pd.DataFrame, facts: RunFacts) -> pd.DataFrame:
    import pandas as pd

    keys = table[list(KEY_COLUMNS)]
    parts = []
    for target in facts.targets:
        found = run.estimates(target.name)
        parts.append(
            keys.assign(
                target=target.name, unit=target.unit, mean=found.mean, sd=found.sd, lower=found.lower,
                upper=found.upper, level=facts.level, probability=found.probability,
            )
        )  # fmt: skip
    if not parts:
        return keys
    return pd.concat(parts, ignore_index=True).sort_values([*KEY_COLUMNS, "target"], ignore_index=True)


def _by_field(table: pd.DataFrame, facts: RunFacts) -> pd.DataFrame:
    import pandas as pd

    names = {t.name: f"est_p{t.field}" if t.field else f"est_{t.name}" for t in facts.targets}
    latest = table[table["instance"].notna() & (table["eid"] != "")]
    latest = latest.sort_values(["eid", "instance", "array"]).drop_duplicates(["eid", "instance"], keep="last")
    pieces = {
        f"{name}_i{instance}": group.set_index("eid")[f"{target}_mean"]
        for instance, group in latest.groupby("instance")
        for target, name in names.items()
    }
    result = pd.DataFrame(pieces)
    result.index = result.index.astype("string")
    result.index.name = "eid"
    return result.sort_index()
