"""Give a command the options that it shares with others, which a dataclass holds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

Command = Callable[..., None]


@dataclass(frozen=True)
class After:
    """In an option's annotation: the option that it follows in ``--help``."""

    name: str


def shares(group: type) -> Callable[[Command], Command]:
    """Give a command every field of a dataclass as an option; it gets them together, as ``shared``.

    ``--help`` shows the options as they are written, first the fields and then the command's own, but an option with
    :class:`After` goes to the one that it names, and those written next go with it.

    Args:
        group: the dataclass; its fields are keyword-only and annotated for typer, as are the command's parameters.
    """
    fields = inspect.signature(group, eval_str=True).parameters

    def decorate(command: Command) -> Command:
        @wraps(command)
        def call(**given: Any) -> None:
            command(shared=group(**{name: given.pop(name) for name in fields}), **given)

        own = inspect.signature(command, eval_str=True).parameters
        options = _in_order([*fields.values(), *(option for name, option in own.items() if name != "shared")])
        call.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        call.__annotations__ = {option.name: option.annotation for option in options}
        return call

    return decorate


def _in_order(options: list[inspect.Parameter]) -> list[inspect.Parameter]:
    names: list[str] = []
    place = 0
    for option in options:
        for mark in getattr(option.annotation, "__metadata__", ()):
            if isinstance(mark, After):
                place = names.index(mark.name) + 1
        names.insert(place, option.name)
        place += 1
    return sorted(options, key=lambda option: names.index(option.name))
