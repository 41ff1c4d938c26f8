"""All measures of image quality, by name: the registry, and how a scan's are computed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ukb_infer.quality import body, protocol, seams, signal
from ukb_infer.quality.sample import Sample, sample_station, sample_stations
from ukb_infer.quality.seams import Seam
from ukb_infer.quality.swaps import seams_of, swap_measures, treat_swaps
from ukb_infer.records import Measures, Station, Stations, SwapMode

#: Digits that are kept: more would be noise, and cost a biobank's journal as much again.
DIGITS = 6
_NUMBER = re.compile(r"_\d+$")
_SWAP = re.compile(r"swap_(\d+)(|_confidence|_action)")
#: Columns of swaps by what follows the station's number.
_SWAP_MEANINGS = {
    "": "fat-water swap (none, whole, left, right or both legs, part: a region; left is the participant's)",
    "_confidence": "posterior probability, 0-1, of what is said of the swap (of a part: how exactly it is exchanged)",
    "_action": "what was done about the swap (none, flagged, corrected)",
}

MRIQC = "Esteban et al., MRIQC, PLOS ONE 2017"
UKB = "UK Biobank field 20201, protocol of the neck-to-knee Dixon"
OURS = "ours"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure.

    Attributes:
        title: what it is, in a few words.
        per: what ``function`` is computed of: a ``Sample`` (station), a ``Seam``, all samples (scan), or a sample and
            the z of the scan's upper end (``station_below``).
        function: the pure function; None where it cannot be told. Its docstring is the formula.
        unit: of the number; "" for shares and ratios, "text" for words.
        source: of the formula.
        better: in which direction quality rises: higher, lower, zero (both signs are worse) or neither.
        summary: what the scan's value is of those of its stations or seams; "" where it has only the one.
    """

    title: str
    per: Literal["station", "station_below", "seam", "scan"]
    function: Callable[..., float | str | None]
    unit: str = ""
    source: str = OURS
    better: Literal["higher", "lower", "zero", "neither"] = "lower"
    summary: Literal["", "smallest", "largest", "sum", "farthest"] = ""

    @property
    def formula(self) -> str:
        """In words and symbols, one paragraph."""
        return " ".join((self.function.__doc__ or "").split("\n\n    Args:")[0].split())


def _of_station(title: str, function: Callable[..., float | None], summary: Any = "largest", **more: Any) -> Measure:
    return Measure(title=title, per="station", function=function, summary=summary, **more)


#: All measures by name, in the order of the columns. A station's or seam's column has its number behind the name.
MEASURES: dict[str, Measure] = {
    "snr": _of_station(
        "signal-to-noise ratio", signal.signal_to_noise, "smallest", better="higher",
        source="Gudbjartsson & Patz, Magn Reson Med 1995 (Rician); Dietrich et al., J Magn Reson Imaging 2007",
    ),
    "ghost": _of_station(
        "ghost ratio", signal.ghost_ratio, source="after Giannelli et al., J Appl Clin Med Phys 2010 (GSR); " + MRIQC
    ),
    "saturated": _of_station("saturated share", signal.saturated_share),
    "empty": _of_station("empty slices", signal.empty_share),
    "bias": _of_station("bias field", signal.bias_field, source="after " + MRIQC + " (intensity non-uniformity)"),
    "folding": Measure(title="folding at station ends", per="seam", function=seams.folding, summary="largest"),
    "seam_mismatch_water": Measure(
        title="seam mismatch of water", per="seam", function=seams.seam_mismatch_water, summary="largest"
    ),
    "seam_mismatch_fat": Measure(
        title="seam mismatch of fat", per="seam", function=seams.seam_mismatch_fat, summary="largest"
    ),
    "seam_gain": Measure(
        title="seam gain", per="seam", function=seams.seam_gain, unit="ln", better="zero", summary="farthest"
    ),
    "contact_trunk": _of_station("contact of the trunk with the field of view", body.contact_trunk),
    "contact_arms": _of_station("contact of the arms with the field of view", body.contact_arms),
    "void": Measure(
        title="enclosed signal voids, as from metal", per="station_below", function=body.void_ml, unit="ml",
        summary="sum",
    ),
    "outer_fat_fraction": _of_station(
        "fat fraction of the outer 5 mm", body.outer_fat_fraction, "smallest", better="higher"
    ),
    "asymmetry": _of_station("left-right asymmetry", body.asymmetry),
    "off_centre": _of_station("off-centre position", body.off_centre, unit="mm"),
    "body_area": _of_station("cross-section of the body", body.body_area, unit="cm2", better="neither"),
    "coverage_knee": Measure(
        title="coverage beyond the knee", per="scan", function=body.coverage_knee, unit="mm", better="higher"
    ),
    "coverage_shoulder": Measure(
        title="coverage beyond the shoulder", per="scan", function=body.coverage_shoulder, unit="mm", better="higher"
    ),
    "body_volume": Measure(
        title="body in the field", per="scan", function=body.body_volume, unit="L", better="neither"
    ),
    "spacing_deviation": _of_station("deviation of the spacing", protocol.spacing_deviation, source=UKB),
    "matrix_deviation": _of_station("deviation of the matrix", protocol.matrix_deviation, unit="voxels", source=UKB),
    "echo_time_deviation": _of_station(
        "deviation of the echo time", protocol.echo_time_deviation, unit="ms", source=UKB
    ),
    "field_deviation": _of_station("deviation of the field strength", protocol.field_deviation, unit="T", source=UKB),
    "pause": Measure(
        title="time between stations", per="seam", function=protocol.pause_s, unit="s", better="neither",
        summary="largest",
    ),
    "scanner": Measure(title="scanner", per="scan", function=protocol.scanner, unit="text", better="neither"),
    "software": Measure(title="software", per="scan", function=protocol.software, unit="text", better="neither"),
}  # fmt: skip

_SUMMARIES: dict[str, Callable[[Sequence[float]], float]] = {
    "smallest": min,
    "largest": max,
    "sum": math.fsum,
    "farthest": lambda values: max(values, key=abs),
}


def measure_stations(stations: Sequence[Station]) -> Measures:
    """All measures of a scan: ``snr_1`` … of stations and seams (numbered by the upper one), ``snr`` of the scan.

    What cannot be told is left out; every number is finite.

    Args:
        stations: checked, head first.
    """
    samples = sample_stations(stations)
    return _measure(samples, seams_of(samples))


def inspect_scan(scan: Stations, swaps: SwapMode = "flag") -> tuple[Stations, Measures]:
    """Look for fat-water swaps, correct them if asked to, and measure what is then to be fused.

    Args:
        scan: as read and checked.
        swaps: flag, correct or ignore.

    Returns:
        The scan, flagged or corrected, and its measures with ``swap_1``, ``swap_1_confidence``, ``swap_1_action`` …
    """
    samples = sample_stations(scan.stations)
    joints = seams_of(samples)
    treated, found = treat_swaps(scan, samples, joints, swaps)
    if any(swap.action == "corrected" for swap in found):
        pairs = zip(scan.stations, treated.stations, samples, strict=True)
        samples = tuple(own if old is new else sample_station(new) for old, new, own in pairs)
        joints = seams_of(samples)
    return treated, {**_measure(samples, joints), **swap_measures(found)}


def find_and_treat(scan: Stations, swaps: SwapMode) -> tuple[Stations, Measures]:
    """As :func:`inspect_scan`, with the columns of swaps alone.

    Args:
        scan: as read and checked.
        swaps: flag, correct or ignore.
    """
    if swaps == "ignore":
        return scan, {}
    samples = sample_stations(scan.stations)
    treated, found = treat_swaps(scan, samples, seams_of(samples), swaps)
    return treated, swap_measures(found)


def _measure(samples: Sequence[Sample], joints: Sequence[Seam]) -> Measures:
    top_mm = max(float(sample.station.position_mm[2]) for sample in samples)
    found: dict[str, float | str] = {}
    for name, measure in MEASURES.items():
        if measure.per == "scan":
            found |= _kept([(name, measure.function(samples))])
            continue
        things: Sequence[Any] = joints if measure.per == "seam" else samples
        more = (top_mm,) if measure.per == "station_below" else ()
        own = _kept((f"{name}_{k}", measure.function(thing, *more)) for k, thing in enumerate(things, start=1))
        numbers = [value for value in own.values() if isinstance(value, float)]
        if numbers:
            found |= _kept([(name, _SUMMARIES[measure.summary](numbers))])
        found |= own
    return found


def _kept(values: Iterable[tuple[str, float | str | None]]) -> dict[str, float | str]:
    """What is known, rounded to ``DIGITS``."""
    kept: dict[str, float | str] = {}
    for name, value in values:
        if isinstance(value, str):
            if value:
                kept[name] = value
        elif value is not None and math.isfinite(value):
            kept[name] = float(f"{value:.{DIGITS}g}") + 0.0  # no -0.0
    return kept


def measure_of(column: str) -> str:
    """Name of the measure of a column: ``snr`` of ``snr_3``."""
    return column if column in MEASURES else _NUMBER.sub("", column)


@lru_cache(maxsize=4096)  # asked for every cell of a biobank
def is_text(column: str) -> bool:
    """Whether a column of the registry holds words."""
    measure, swap = MEASURES.get(measure_of(column)), _SWAP.fullmatch(column)
    return (measure is not None and measure.unit == "text") or (swap is not None and swap[2] != "_confidence")


def in_order(columns: Iterable[str]) -> list[str]:
    """Columns in the order of the registry, each measure's summary first; others behind, by name."""
    order = {name: k for k, name in enumerate(MEASURES)}
    return sorted(columns, key=lambda c: (order.get(measure_of(c), len(order)), len(c), c))


def describe(column: str) -> tuple[str, str]:
    """Meaning and unit of a column, for the dictionary; "" for one that is not of the registry."""
    if swap := _SWAP.fullmatch(column):
        return f"{_SWAP_MEANINGS[swap[2]]} of station {swap[1]}", ""
    measure = MEASURES.get(measure_of(column))
    if measure is None:
        return "", ""
    unit = "" if measure.unit == "text" else measure.unit
    number = column.rpartition("_")[2]
    if column in MEASURES:
        of = f"{measure.summary} of its {'seams' if measure.per == 'seam' else 'stations'}; " if measure.summary else ""
        return f"{measure.title}: {of}{measure.formula}", unit
    where = f"between stations {number} and {int(number) + 1}" if measure.per == "seam" else f"of station {number}"
    return f"{measure.title} {where}", unit
