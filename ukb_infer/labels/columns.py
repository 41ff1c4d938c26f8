"""Names of label columns: plain target names and the forms UK Biobank's tools write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ukb_infer.labels.cells import clean
from ukb_infer.labels.titles import TITLES, plain_title
from ukb_infer.targets import TargetSpec, spec_of_field

_FIELD, _INSTANCE, _ARRAY = r"(?P<field>[0-9]{2,6})", r"(?P<instance>[0-9]+)", r"(?P<array>[0-9]+)"
#: Spellings of a field's column; a table's name may precede each (``participant.``).
_FORMS = tuple(
    re.compile(rf"^(?:[a-z]\w*(?:\.| - ))?{form}$", re.IGNORECASE)
    for form in (
        # Table exporter: p21002_i2, p102_i2_a0, p31.
        rf"[pfx]?{_FIELD}_i{_INSTANCE}(?:_a{_ARRAY})?",
        rf"p{_FIELD}(?:_a{_ARRAY})?",
        # ukbconv: 21002-2.0; R: f.21002.2.0, X21002.2.0, x21002_2_0; Stata and SAS: n_21002_2_0, s_31_0_0;
        # ukbtools: weight_f21002_2_0.
        rf"(?:[a-z]\w*_)?[pfx]?[._]?{_FIELD}[-._]{_INSTANCE}[._]{_ARRAY}",
        rf"(?:[a-z]\w*_)?[fx]?[._]?{_FIELD}[-_]{_INSTANCE}",
        # The field alone: 21002, f21002, X21002, weight_f21002; 21002.0 as a spreadsheet number.
        rf"(?:(?:[a-z]\w*_)?[fx][._]?)?{_FIELD}(?:\.0)?",
    )
)
_TITLE = re.compile(r"^(?P<title>.*?)(?: instance (?P<instance>[0-9]+))?(?: array (?P<array>[0-9]+))?$")
#: How the exporter distinguishes two columns of one title: ``Weight | Instance 2(participant - p21002_i2)``.
_CODE_IN_TITLE = re.compile(r"\((?:\w+(?:\.| - ))?(p[0-9]+(?:_i[0-9]+)?(?:_a[0-9]+)?)\)$")
#: Fields with one value per participant, although some tools append instance 0 (``31-0.0``).
_ONE_VALUE_FIELDS = frozenset({"31"})
#: Columns of row numbers and families, as pandas, R and PLINK write them.
_IGNORED = re.compile(r"^(|unnamed: [0-9]+|index|level_0|x|v1|row|rowname|rownames|row\.names|\.\.\.[0-9]+|#?fid)$")
#: Key columns; the table exporter puts its entity in front (``participant.eid``).
KEYS = ("scan", "eid", "instance", "array")


@dataclass(frozen=True)
class LabelColumn:
    """A column of a label table.

    Attributes:
        column: its name in the file.
        target: name of the target.
        instance: visit of the values; None: the row's own visit, or every visit of the participant.
        array: array index; only the first of several measurements is used.
    """

    column: str
    target: str
    instance: int | None
    array: int


#: ``participant.eid``, ``f.eid``, ``n_eid`` and ``n_eid_12345`` (Stata, with the number of the application).
_EID = re.compile(r"^(?:[a-z]+_)?eid(?:_[0-9]{2,6})?$")
#: Titles and other names of the participant's column: the platform's, the Showcase's, PLINK's.
_EID_NAMES = frozenset({"participant_id", "participantid", "encoded_anonymised_participant_id", "iid", "feid", "ukbid"})


def key_of(column: str) -> str | None:
    """``scan``, ``eid``, ``instance`` or ``array`` for a key column, else None.

    The participant's column is known as ``eid``, ``participant.eid``, ``f.eid``, ``n_eid``, ``n_eid_12345``,
    ``Participant ID`` and ``IID``.
    """
    name = column.strip().lower()
    plain = name.rsplit(".", 1)[-1]
    if plain in KEYS:
        return plain
    words = re.sub(r"[^a-z0-9]+", "_", name).strip("_")
    return "eid" if _EID.match(words) or words in _EID_NAMES else None


@dataclass(frozen=True)
class FieldColumn:
    """A column of UK Biobank: field, visit (None for every visit), array."""

    field: str
    instance: int | None
    array: int


def parse_field(column: str) -> FieldColumn | None:
    """Resolve a column of a UK Biobank field, by its code or its title.

    Args:
        column: name in the file.

    Returns:
        The field, target or not; "" as field of a title that is not a target's. None if it is not a field's column.
    """
    name = clean(column)
    code = _CODE_IN_TITLE.search(name)
    found = next((m for form in _FORMS if (m := form.match(code[1] if code else name))), None)
    if found is not None:
        parts = found.groupdict()
        return _field_column(parts["field"], parts.get("instance"), parts.get("array"))
    title = _TITLE.match(plain_title(name))
    if title is None or (title["title"] not in TITLES and title["instance"] is None):
        return None
    return _field_column(TITLES.get(title["title"], ""), title["instance"], title["array"])


def _field_column(field: str, instance: str | None, array: str | None) -> FieldColumn:
    visit = None if instance is None or field in _ONE_VALUE_FIELDS else int(instance)
    return FieldColumn(field, visit, int(array or 0))


def is_row_number(column: str) -> bool:
    """Whether a column has no name, or a name that pandas, R and PLINK give to row numbers and families."""
    return _IGNORED.match(clean(column).lower()) is not None


def parse_column(column: str, targets: Mapping[str, TargetSpec]) -> LabelColumn | None:
    """Resolve a column.

    Args:
        column: name in the file.
        targets: known targets by name, including user-defined ones.

    Returns:
        The column's meaning, or None if it is not a known target.
    """
    name = clean(column)
    plain = name.rsplit(".", 1)[-1]
    for candidate in (name, plain):
        if candidate in targets:
            return LabelColumn(column, candidate, None, 0)
    found = parse_field(name)
    if found is None:
        same = [t for t in targets if t.lower() == name.lower()]
        return LabelColumn(column, same[0], None, 0) if len(same) == 1 else None
    spec = spec_of_field(found.field, targets)
    return None if spec is None else LabelColumn(column, spec.name, found.instance, found.array)
