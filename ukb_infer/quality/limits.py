"""Limits on measures: which reason they raise, how grave it is, and what it touches; read from TOML.

``limits.toml`` beside this file holds the defaults. A user's file has the same tables, one a reason; what it says of a
reason replaces the default's keys, and what it does not name stays.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ukb_infer.errors import RunError, UsageError
from ukb_infer.quality.registry import MEASURES
from ukb_infer.reasons import Kind, Reason
from ukb_infer.text import suggest

DEFAULT_FILE = Path(__file__).with_name("limits.toml")
#: Reasons that limits may raise.
REASONS = tuple(reason.value for reason in Reason if reason.kind is Kind.QUALITY)
#: Flags without a limit that may be required to be absent: of swaps that were not corrected.
SWAPS = (Reason.FAT_WATER_SWAP.value, Reason.FAT_WATER_SWAP_LEG.value)


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Limit(_Checked):
    """When a reason is raised.

    Attributes:
        measures: names; those of stations and seams are judged each.
        level: the scan is ``unusable``; only ``targets`` are affected; a ``note``; ``off``.
        targets: names or patterns (``*Leg*``), for level ``targets``.
        stations: numbers of the stations (or upper stations of seams) that are judged; empty for all.
        below: raised under this value; ``above``: over it.
        mads_below: raised further below the run's median than so many median absolute deviations (scaled to standard
            deviations), both for scans of this body size; ``mads_above``: further above.
        margin: a relative limit is at least this far from the median.
    """

    measures: tuple[str, ...]
    level: Literal["unusable", "targets", "note", "off"]
    targets: tuple[str, ...] = ()
    stations: tuple[int, ...] = ()
    below: float | None = None
    above: float | None = None
    mads_below: float | None = None
    mads_above: float | None = None
    margin: float = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.measures:
            if name not in MEASURES or MEASURES[name].unit == "text":
                raise ValueError(f"measures: no number is called {name!r}{suggest(name, MEASURES)}")
        if all(v is None for v in (self.below, self.above, self.mads_below, self.mads_above)):
            raise ValueError("has no limit; expected below, above, mads_below or mads_above")
        if min(self.mads_below or 0.0, self.mads_above or 0.0, self.margin) < 0:
            raise ValueError("mads_below, mads_above and margin are distances, expected at least 0")
        if (self.level == "targets") != bool(self.targets):
            raise ValueError('targets: expected with level = "targets", and only then')
        return self

    @property
    def words(self) -> str:
        """The limit in words."""
        parts = [
            f"{side} {value:g}" for side, value in (("below", self.below), ("above", self.above)) if value is not None
        ]
        parts += [
            f"{mads:g} MAD {side} the run's median" + (f", at least {self.margin:g}" if self.margin else "")
            for side, mads in (("below", self.mads_below), ("above", self.mads_above))
            if mads is not None
        ]
        where = f" of station {', '.join(map(str, self.stations))}" if self.stations else ""
        return f"{', '.join(f'`{name}`' for name in self.measures)}{where} {', or '.join(parts)}"

    @property
    def is_relative(self) -> bool:
        """Whether it needs the whole run."""
        return self.level != "off" and (self.mads_below is not None or self.mads_above is not None)

    def touches(self, target: str) -> bool:
        """Whether a target is affected."""
        return any(fnmatchcase(target, pattern) for pattern in self.targets)


class Required(_Checked):
    """What ``--require-quality`` turns into failures: flags by reason or by level.

    Attributes:
        reasons: codes; those of swaps count where one was not corrected.
        levels: every flag of these levels.
    """

    reasons: tuple[str, ...] = ()
    levels: tuple[Literal["unusable", "targets", "note"], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for code in self.reasons:
            _check_code(code, (*REASONS, *SWAPS))
        return self

    def covers(self, reason: Reason, level: str) -> bool:
        """Whether a flag is a failure.

        Args:
            reason: of the flag.
            level: of the flag.
        """
        return reason.value in self.reasons or level in self.levels


class QualitySpec(_Checked):
    """How a run judges quality; kept in its journal.

    Attributes:
        limits: by reason code.
        required: flags that are failures.
        strict: every flag is one.
    """

    limits: dict[str, Limit]
    required: Required = Required()
    strict: bool = False

    def to_plain(self) -> dict[str, Any]:
        """For the journal and ``run.json``."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def from_journal(cls, plain: dict[str, Any] | None) -> QualitySpec:
        """From the journal; without limits where it has none.

        Raises:
            RunError: it is damaged.
        """
        try:
            return cls.model_validate(plain or {"limits": {}})
        except ValidationError as error:
            raise RunError(f"the journal's limits of quality are damaged ({_words(error)}); use --overwrite") from error


def read_spec(quality: Path | None = None, required: Path | None = None, *, strict: bool = False) -> QualitySpec:
    """How quality is to be judged.

    Args:
        quality: TOML file of limits; None for the defaults.
        required: TOML file of flags that are failures.
        strict: every flag is one.

    Raises:
        UsageError: a file that cannot be read or makes no sense; names the file and the key.
    """
    tables = _read_toml(DEFAULT_FILE, "quality")
    if quality is not None:
        for code, table in _read_toml(quality, "quality").items():
            if not isinstance(table, Mapping):
                raise UsageError(f"{quality}: {code} stands outside the tables; expected [reason]", field="quality")
            tables[code] = tables.get(code, {}) | table
            if table.get("level", "targets") != "targets" and "targets" not in table:
                tables[code].pop("targets", None)
    limits = {}
    for code, table in tables.items():
        try:
            _check_code(code)
            limits[code] = Limit.model_validate(table)
        except (ValidationError, ValueError) as error:
            raise UsageError(f"{quality}: [{code}]: {_words(error)}", field="quality") from None
    try:
        wanted = Required.model_validate({} if required is None else _read_toml(required, "require_quality"))
    except ValidationError as error:
        raise UsageError(f"{required}: {_words(error)}", field="require_quality") from None
    return QualitySpec(limits=limits, required=wanted, strict=strict)


def _check_code(code: str, known: Sequence[str] = REASONS) -> None:
    if code not in known:
        raise ValueError(f"no limit raises {code!r}{suggest(code, known)} (choices: {', '.join(known)})")


def _read_toml(path: Path, field: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})", field=field) from None
    except ValueError as error:  # no UTF-8, or no TOML
        raise UsageError(f"{path}: is no TOML ({error})", field=field) from None


def _words(error: ValueError) -> str:
    """First complaint of a validation, in one sentence."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    return f"{place}: {said}, got {str(first['input'])[:60]!r}" if place else said
