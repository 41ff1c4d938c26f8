"""Values read from files, validated into records."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast

Record = TypeVar("Record")


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter  # loaded on first use, so that workers do without it

    return TypeAdapter(kind)


def from_plain(kind: type[Record], plain: object) -> Record:
    """Validate JSON values into a record.

    Args:
        kind: a dataclass whose annotations say what is allowed; unknown keys are ignored.
        plain: as read.

    Raises:
        ValueError: one sentence with the first field that does not fit.
    """
    from pydantic import ValidationError

    try:
        return cast(Record, _adapter(cast(Hashable, kind)).validate_python(plain))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise ValueError(f"{place}: {first['msg']}, got {str(first['input'])[:60]!r}") from None
