"""How the errors of two visits of one person go together: ``visits.json``, an optional part of a module.

The errors are alike, as the same networks see the same body; their correlation decides how wide the interval of a
change is. The file says for which state of the module it holds: once that is calibrated or trained again, its sds
differ, and ``changes`` asks for a new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, Strict

from ukb_infer.errors import ModuleError
from ukb_infer.modules.checks import (
    Line,
    LineOrNothing,
    Number,
    Positive,
    Widths,
    expected,
    from_json,
    load_json,
    read_object,
    wrong,
)
from ukb_infer.storage import atomic_write_text

Float64 = NDArray[np.float64]

VISITS_NAME = "visits.json"
#: Larger files are refused unread.
MAX_BYTES = 16 << 20
#: Fewest pairs of visits from which a correlation is estimated.
FEWEST_PAIRS = 20
#: Fewest pairs that give the widths of intervals, which errors with heavy tails need, and the levels of these.
FOR_WIDTHS = 100
_LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95, 0.99)
_LARGEST = 0.99


def _correlation(value: float) -> float:
    if not -1.0 < value < 1.0:
        raise wrong("a number between -1 and 1")
    return value


@from_json
@dataclass(frozen=True)
class VisitErrors:
    """How the errors of two visits go together.

    Attributes:
        correlation: of the errors of both visits, each in its own sd; also what both have in common for everyone.
        factor: of the sd of a change, by which its observed errors exceed what sds and correlation say.
        pairs: of visits it was estimated from; 0 if it was given.
        half_widths: (level, half width of an interval in sds of the change), conformal; empty for few pairs.
    """

    correlation: Annotated[Number, AfterValidator(_correlation)]
    factor: Positive = 1.0
    pairs: Annotated[int, Strict(), Field(ge=0), expected("a number of pairs")] = 0
    half_widths: Widths = ()

    @classmethod
    def estimate(cls, estimates: Float64, sds: Float64, labels: Float64) -> VisitErrors | None:
        """From visits with labels; None if fewer than :data:`FEWEST_PAIRS` are complete, or all are without error.

        Args:
            estimates: (2, N) of both visits.
            sds: (2, N) of the estimates.
            labels: (2, N) measurements.
        """
        kept = np.isfinite(estimates + labels + sds).all(axis=0) & (sds > 0).all(axis=0)
        errors, sds = (estimates - labels)[:, kept], sds[:, kept]
        if kept.sum() < FEWEST_PAIRS or not np.any(errors[1] != errors[0]):
            return None
        scaled = errors / sds
        together = float(np.mean(scaled[0] * scaled[1]) / np.mean(scaled**2))
        found = cls(round(float(np.clip(together, -_LARGEST, _LARGEST)), 3), 1.0, int(kept.sum()))
        ratios = np.sort(np.abs(errors[1] - errors[0]) / found.sd(sds))
        factor = float(f"{np.sqrt(np.mean(ratios**2)):.3g}")
        ranks = {level: int(np.ceil((found.pairs + 1) * level)) for level in _LEVELS if found.pairs >= FOR_WIDTHS}
        widths = ((a, float(f"{ratios[k - 1] / factor:.3g}")) for a, k in ranks.items() if k <= found.pairs)
        return cls(found.correlation, factor, found.pairs, tuple((a, w) for a, w in widths if w > 0))

    def sd(self, sds: Float64) -> Float64:
        """(N,) standard deviation of the error of a change.

        Args:
            sds: (2, N) of the estimates.
        """
        variance = sds[0] ** 2 + sds[1] ** 2 - 2.0 * self.correlation * sds[0] * sds[1]
        return np.asarray(self.factor * np.sqrt(np.maximum(variance, 0.0)), np.float64)

    def quantile(self, level: float) -> float:
        """Half width of an interval in sds: conformal where the pairs allow it, else of a t distribution."""
        if self.half_widths and self.half_widths[0][0] <= level <= self.half_widths[-1][0]:
            levels, widths = np.array(self.half_widths).T
            return float(np.interp(level, levels, widths))
        from scipy.stats import norm, t  # takes a while, and manifests are read without it

        return float(t.ppf(0.5 + level / 2, self.pairs) if self.pairs else norm.ppf(0.5 + level / 2))


@from_json
@dataclass(frozen=True)
class MadeBy:
    """A module in the state in which it made the estimates; ``sha256``: its hash."""

    name: Line
    sha256: LineOrNothing


@from_json
@dataclass(frozen=True, kw_only=True)
class Visits:
    """Errors of two visits by target.

    Attributes:
        modules: that made the estimates.
        targets: errors by target.
        fitted_on: what the pairs were.
        schema_version: of the file.
    """

    modules: tuple[MadeBy, ...]
    targets: Mapping[str, VisitErrors] = field(default_factory=dict)
    fitted_on: LineOrNothing = ""
    schema_version: Annotated[Literal[1], expected("1")] = 1

    def to_json(self) -> str:
        """As text, a line for each target."""
        plain = asdict(self)
        targets = ",\n  ".join(
            f"{json.dumps(n)}: {json.dumps(e, allow_nan=False)}" for n, e in plain.pop("targets").items()
        )
        return f'{json.dumps(plain)[:-1]}, "targets": {{\n  {targets}\n}}}}\n'


def read_visits(path: Path) -> Visits:
    """Read ``visits.json``, or the file that ``changes`` saved.

    Raises:
        ModuleError: missing, too large, or invalid.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModuleError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ModuleError(f"{path}: cannot be read ({why})") from error
    return read_object(Visits, load_json(text, str(path)), str(path))


def write_visits(path: Path, visits: Visits) -> None:
    """Write ``visits.json``.

    Args:
        path: of the file; its folder is made.
        visits: what it holds.

    Raises:
        ModuleError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, visits.to_json())
    except OSError as error:
        raise ModuleError(f"{path}: cannot be written ({error.strerror}); choose another, or free space") from error


def described_visits(folder: Path, module: MadeBy) -> str:
    """What is known of a module's errors at two visits, in words.

    Args:
        folder: of the module.
        module: as it is now.

    Raises:
        ModuleError: the file is damaged.
    """
    if not (folder / VISITS_NAME).exists():
        return "not available"
    visits = read_visits(folder / VISITS_NAME)
    return visits.fitted_on if module in visits.modules else f"{visits.fitted_on}, before it was calibrated"
