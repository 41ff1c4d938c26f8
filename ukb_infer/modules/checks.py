"""Types of the values in a module's JSON files, each with a description of what it expects.

pydantic checks them; an error becomes a ``ModuleError`` with file, place, value found and value expected. Nothing is
coerced: neither text nor ``true`` is a number. Unknown keys are refused, with the nearest known one.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError, WrapValidator
from pydantic import model_validator as validator_of
from pydantic_core import PydanticCustomError

from ukb_infer.errors import ModuleError
from ukb_infer.text import suggest

T = TypeVar("T")
Place = tuple[int | str, ...]
#: Numbers above this, or positive ones below its inverse, have no finite, positive square.
MAX_NUMBER = 1e100


def wrong(words: str) -> PydanticCustomError:
    """Error of a value.

    Args:
        words: what was expected in its place.
    """
    return PydanticCustomError("expected", "{expected}", {"expected": words})


def expected(words: str) -> WrapValidator:
    """Annotation: the description of what was expected, for any error in this value."""

    def check(value: Any, inner: Callable[[Any], Any]) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise wrong(words) from None

    return WrapValidator(check)


def _that(holds: Callable[[Any], bool]) -> AfterValidator:
    """Annotation: the value must satisfy this condition."""

    def check(value: T) -> T:
        if not holds(value):
            raise ValueError
        return value

    return AfterValidator(check)


def is_printable(text: str, *, lines: bool) -> bool:
    """Whether a text is safe for tables and terminals: no lone surrogates, no control characters.

    Args:
        text: of any length.
        lines: whether it may have several.
    """
    return all((lines and c == "\n") or unicodedata.category(c) not in ("Cc", "Cs") for c in text)


def _rising(rows: tuple[tuple[float, ...], ...]) -> bool:
    return all(a[0] < b[0] for a, b in pairwise(rows))


def _rising_both(rows: tuple[tuple[float, float], ...]) -> bool:
    return _rising(rows) and all(a[1] <= b[1] for a, b in pairwise(rows))


_OneLine, _Printable = _that(lambda text: is_printable(text, lines=False)), _that(lambda t: is_printable(t, lines=True))
_Finite = Annotated[float, Strict(), Field(ge=-MAX_NUMBER, le=MAX_NUMBER, allow_inf_nan=False)]
_Level = Annotated[_Finite, Field(gt=0, lt=1)]
_Share = Annotated[_Finite, Field(ge=0, le=1)]

Number = Annotated[_Finite, expected("a number")]
Positive = Annotated[_Finite, Field(ge=1.0 / MAX_NUMBER), expected("a number above 0")]
Line = Annotated[str, Strict(), Field(min_length=1), _OneLine, expected("one line of text")]
LineOrNothing = Annotated[str, Strict(), _OneLine, expected("one line of text, or nothing between the quotes")]
Prose = Annotated[str, Strict(), _Printable, expected("text")]
#: Level to half width of a conformal calibration.
Widths = Annotated[
    tuple[tuple[_Level, Annotated[_Finite, Field(gt=0)]], ...],
    _that(_rising_both),
    expected("a list of [level, half width], levels ascending in (0, 1), half widths above 0 and not descending"),
]
Curve = Annotated[
    tuple[tuple[_Finite, _Share], ...],
    _that(_rising_both),
    expected("a list of [mean, probability], both ascending, probabilities in 0 to 1"),
]
Sets = Annotated[
    tuple[tuple[_Level, _Finite, _Finite], ...],
    _that(_rising),
    expected("a list of [level, lowest probability of class 0, of class 1], levels ascending in (0, 1)"),
]


def _is_setting(value: Any) -> bool:
    if isinstance(value, str):
        return is_printable(value, lines=False)
    number = isinstance(value, (int, float)) and -MAX_NUMBER <= value <= MAX_NUMBER  # bool is one of them
    return value is None or number


#: A setting of the training.
Setting = Annotated[
    Any,
    _that(lambda value: all(map(_is_setting, value if isinstance(value, list) else [value]))),
    expected("text, a number, true, false, null or a list of those"),
]


def each_once(name: str) -> AfterValidator:
    """Annotation of a list of objects: no two with the same value under a name."""

    def check(items: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [getattr(item, name) for item in items]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise wrong(f"each {name} once; repeated: {', '.join(twice)}")
        return items

    return AfterValidator(check)


def from_json(kind: type[T]) -> type[T]:
    """Decorator of a dataclass that is read from a JSON object: unknown keys are refused, missing ones read as null."""
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(kind)}  # type: ignore[arg-type]

    def complete(_: type[T], value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if unknown := unknown_key(value, known):
            key, words = unknown
            raise PydanticCustomError("expected", "{expected}", {"key": key, "found": value[key], "expected": words})
        return dict.fromkeys(name for name, required in known.items() if required) | value

    # ``validate_default`` also checks the default of a missing key.
    kind.__pydantic_config__ = ConfigDict(validate_default=True)  # type: ignore[attr-defined]
    kind._complete = validator_of(mode="before")(classmethod(complete))  # type: ignore[arg-type, attr-defined]
    return kind


def unknown_key(value: dict[str, Any], known: Iterable[str]) -> tuple[str, str] | None:
    """Find a key the format does not have; a misspelled limit would otherwise be ignored.

    Args:
        value: a JSON object.
        known: its possible keys.

    Returns:
        The first such key and what was expected; None if there is none.
    """
    names = tuple(known)
    return next(((key, f"no such key{suggest(key, names)}") for key in value if key not in names), None)


def load_json(text: str, file: str) -> dict[str, Any]:
    """Parse a JSON object whose keys are all different.

    Args:
        text: JSON.
        file: its name, for errors.

    Raises:
        ModuleError: not JSON, or not an object.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        "".join(keys).encode()  # a lone surrogate is a ValueError
        twice = next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
        if twice is not None:
            raise ValueError(f"the key {twice[:60]!a} occurs twice in one object")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ModuleError(f"{file}: not valid JSON ({error}); restore the module from its source") from error
    if not isinstance(value, dict):
        raise ModuleError(f"{file}: the top level is {shown(value)}, expected an object")
    return value


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """The checker of a type by pydantic, made once."""
    return TypeAdapter(kind)


def read_object(kind: type[T], value: Any, file: str, where: Callable[[Place], Place] = tuple) -> T:
    """Build a dataclass from a JSON value.

    Args:
        kind: decorated with :func:`from_json`.
        value: of the file.
        file: its name, for errors.
        where: maps a place in the dataclass to the place in the file, for errors.

    Raises:
        ModuleError: names the first wrong place, what was found and what was expected.
    """
    try:
        made: T = adapter(kind).validate_python(value)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        context = first.get("ctx", {})
        place: Place = where((*first["loc"], *([context["key"]] if "key" in context else [])))
        found = context.get("found", first["input"])
        words = context.get("expected") or _WORDS.get(first["type"], first["msg"])
        raise ModuleError(f"{file}: {_spelled(place)} is {shown(found)}, expected {words}") from None
    return made


#: Descriptions of errors without annotation.
_WORDS = {
    "dataclass_type": "an object",
    "dict_type": "an object",
    "tuple_type": "a list of at least 1",
    "too_short": "a list of at least 1",
    "too_long": "a list of at most 10000",
}


def _spelled(place: Place) -> str:
    """A place as in ``outputs.targets[0].sd``; keys are made printable."""
    parts = [f"[{p}]" if isinstance(p, int) else f".{ascii(p[:60])[1:-1]}" for p in place]
    return "".join(parts).removeprefix(".") or "the top level"


def shown(value: Any) -> str:
    """A value as short, printable text."""
    if isinstance(value, str):
        return ascii(value[:60])
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= MAX_NUMBER:
        return "a huge number"
    kinds = {dict: "an object", list: "a list", type(None): "nothing", tuple: "a list"}
    return kinds.get(type(value), repr(value))
