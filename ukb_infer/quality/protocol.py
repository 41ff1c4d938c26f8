"""Measures of how a scan was made, from its headers: what deviates from UK Biobank's protocol, and how long it took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ukb_infer.protocol import ECHO_TIMES_MS, FIELD_TESLA, IN_PLANE_SPACING_MM, PROTOCOL
from ukb_infer.quality.sample import Sample
from ukb_infer.quality.seams import Seam

DAY_S = 86400.0


def spacing_deviation(sample: Sample) -> float | None:
    """Largest relative deviation of a spacing (row, col, slice) from the protocol of the station of this number."""
    if not 1 <= sample.station.number <= len(PROTOCOL):
        return None
    wanted = (IN_PLANE_SPACING_MM, IN_PLANE_SPACING_MM, PROTOCOL[sample.station.number - 1].slice_spacing_mm)
    return max(abs(float(found) / want - 1.0) for found, want in zip(sample.station.spacing_mm, wanted, strict=True))


def matrix_deviation(sample: Sample) -> float | None:
    """Largest difference of rows, columns or slices from the protocol of the station of this number, voxels."""
    if not 1 <= sample.station.number <= len(PROTOCOL):
        return None
    plan = PROTOCOL[sample.station.number - 1]
    wanted = (plan.rows, plan.cols, plan.slices)
    return float(max(abs(found - want) for found, want in zip(sample.station.shape, wanted, strict=True)))


def echo_time_deviation(sample: Sample) -> float | None:
    """Distance of the echo time in the header from the nearer of the protocol's two, ms."""
    echo = sample.station.acquired.echo_time_ms
    return None if echo is None else min(abs(echo - wanted) for wanted in ECHO_TIMES_MS)


def field_deviation(sample: Sample) -> float | None:
    """Distance of the field strength in the header from the protocol's, tesla."""
    tesla = sample.station.acquired.field_tesla
    return None if tesla is None else abs(tesla - FIELD_TESLA)


def pause_s(seam: Seam) -> float | None:
    """Seconds from the start of one station to that of the next, by the times of their series, past midnight too."""
    one, two = seam.upper.station.acquired.time_s, seam.lower.station.acquired.time_s
    return None if one is None or two is None else (two - one + DAY_S / 2) % DAY_S - DAY_S / 2


def scanner(samples: Sequence[Sample]) -> str:
    """Manufacturer and model in the headers, as they stand there; several joined by `` / ``."""
    return _joined(sample.station.acquired.scanner for sample in samples)


def software(samples: Sequence[Sample]) -> str:
    """Versions of the scanner's software in the headers; several joined by `` / ``."""
    return _joined(sample.station.acquired.software for sample in samples)


def _joined(texts: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(text for text in texts if text))
