"""Sections of a configuration: frozen, keyword-only, checked by pydantic, with errors in the caller's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.fields import FieldInfo

from ukb_infer.errors import UsageError
from ukb_infer.text import suggest

_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


class Section(BaseModel):
    """A section of settings. Text and booleans are not numbers; NaN is refused.

    Attributes:
        flat_names: names of settings without sections, if different.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    flat_names: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, values: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return handler(values)
        except ValidationError as error:
            first = error.errors()[0]
        key, fields = str(first["loc"][0]), cls.model_fields
        if key not in fields:
            raise UsageError(f"no such setting{suggest(key, fields)} (choices: {', '.join(fields)})", field=key)
        raise UsageError(field=cls.flat_names.get(key, key), got=values[key], expected=_expected(fields[key]))


def _expected(field: FieldInfo) -> str:
    """Description of the values a setting may have."""
    if field.description:
        return field.description
    if get_origin(field.annotation) is Literal:
        return " or ".join(map(str, get_args(field.annotation)))
    bounds = [
        f"{words} {getattr(rule, name):g}" for rule in field.metadata for name, words in _BOUNDS.items()
        if hasattr(rule, name)
    ]  # fmt: skip
    return ", ".join([_KINDS.get(field.annotation, "another value"), *bounds])  # type: ignore[arg-type]
