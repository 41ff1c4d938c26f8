"""Names of label columns: plain target names and the forms UK Biobank's tools write (floor 1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ukb_infer.targets import TargetSpec

#: ``participant.p21002_i2_a0``, ``p31`` (table exporter); ``21002-2.0`` (ukbconv); ``f.21002.2.0`` (R).
_FORMS = (
    re.compile(r"^(?:\w+\.)?p(?P<field>\d+)(?:_i(?P<instance>\d+))?(?:_a(?P<array>\d+))?$"),
    re.compile(r"^(?P<field>\d+)-(?P<instance>\d+)\.(?P<array>\d+)$"),
    re.compile(r"^f\.(?P<field>\d+)\.(?P<instance>\d+)\.(?P<array>\d+)$"),
)
#: Columns that say whose value it is; a table exporter puts its entity in front (``participant.eid``).
KEYS = ("scan", "eid", "instance", "array")


@dataclass(frozen=True)
class LabelColumn:
    """What a column of a label table holds.

    Attributes:
        column: its name in the file.
        target: name of the target.
        instance: visit the values belong to; None: to the row's own visit, or to every visit of the participant.
        array: array index; only the first of several measurements is used.
    """

    column: str
    target: str
    instance: int | None
    array: int


def key_of(column: str) -> str | None:
    """``scan``, ``eid``, ``instance`` or ``array`` for a key column, else None."""
    plain = column.strip().lower().rsplit(".", 1)[-1]
    return plain if plain in KEYS else None


def parse_column(column: str, targets: Mapping[str, TargetSpec]) -> LabelColumn | None:
    """Resolve a column.

    Args:
        column: name in the file.
        targets: known targets by name, the user's own included.

    Returns:
        The column's meaning, or None where it is no known target.
    """
    name = column.strip()
    plain = name.rsplit(".", 1)[-1] if name.rsplit(".", 1)[-1] in targets else name
    if plain in targets:
        return LabelColumn(column, plain, None, 0)
    for form in _FORMS:
        found = form.match(name)
        if found is None:
            continue
        parts = found.groupdict()
        spec = next((s for s in targets.values() if s.field == parts["field"]), None)
        if spec is None:
            return None
        instance = None if parts["instance"] is None else int(parts["instance"])
        return LabelColumn(column, spec.name, instance, int(parts["array"] or 0))
    return None
