"""A user's own task: a small TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ukb_infer.errors import UsageError
from ukb_infer.tasks.registry import TASKS, get_task
from ukb_infer.tasks.task import Output, Task, TaskTarget
from ukb_infer.training.settings import Section

_METRICS = {"class": ("auroc",), "segmentation": ("dice", "nsd"), "regression": ("mae", "r"), "embedding": ("auroc",)}
_Name = Annotated[str, Field(pattern="^[A-Za-z][A-Za-z0-9_-]{0,99}$", description="letters, digits, _ and -")]
_Limit = Annotated[float | None, Field(strict=False, description="a number")]


class _Target(Section):
    name: Annotated[str, Field(pattern="^[A-Za-z][A-Za-z0-9_]{0,99}$", description="a letter, then letters, digits, _")]
    unit: str = ""
    lower: _Limit = None
    upper: _Limit = None


class _TaskFile(Section):
    name: _Name
    output: Output
    inputs: Annotated[
        list[str | Annotated[list[str], Field(min_length=1)]],
        Field(min_length=1, description='a list of modalities, e.g. ["flair", ["t2s", "swi"]]; in a list, any of them'),
    ]
    target: Annotated[
        dict[str, Any] | list[dict[str, Any]], Field(description="a table [target], or several [[target]]")
    ]
    title: str = ""
    dimension: Literal[2, 3] = 3
    metrics: Annotated[list[str], Field(description="a list of metrics", default_factory=list)]
    groups: Annotated[list[str], Field(description="a list of columns of participants.tsv", default_factory=list)]


def read_task(path: Path) -> Task:
    """Read a task from a TOML file.

    Args:
        path: of the file; ``docs/foundation.md`` has an example.

    Raises:
        UsageError: unreadable, an unknown key, or a value that is not allowed.
    """
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as TOML ({error})", field="task") from error
    try:
        found = _TaskFile(**plain)
        tables = found.target if isinstance(found.target, list) else [found.target]
        targets = [_Target(**table) for table in tables]
        _check_targets(targets, found.output)
        if unknown := set(found.metrics) - set(_METRICS[found.output]):
            expected = f"for a {found.output} some of {', '.join(_METRICS[found.output])}"
            raise UsageError(field="metrics", got=", ".join(sorted(unknown)), expected=expected)
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).replace('`', '')}", field="task") from error
    groups = ((entry,) if isinstance(entry, str) else tuple(entry) for entry in found.inputs)
    inputs = tuple(tuple(name.lower() for name in group) for group in groups)
    return Task(
        name=found.name, title=found.title, dimension=found.dimension, inputs=inputs, output=found.output,
        targets=tuple(TaskTarget(**dict(target)) for target in targets),
        metrics=tuple(found.metrics) or _METRICS[found.output], groups=tuple(found.groups),
    )  # fmt: skip


def _check_targets(targets: Sequence[_Target], output: Output) -> None:
    names = [target.name for target in targets]
    if not names and output != "embedding":
        raise UsageError(field="target", got="none", expected="a table [target], or several [[target]]")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(field="target", got=f"{twice} twice", expected="a name of its own for every target")
    for target in targets:
        if target.lower is not None and target.upper is not None and target.lower >= target.upper:
            raise UsageError(field="lower", got=target.lower, expected=f"less than upper ({target.upper:g})")


def find_task(name: str) -> Task:
    """A task of the registry by name, or one from a ``.toml`` file.

    Raises:
        UsageError: unknown; the message suggests the nearest and lists all.
    """
    if name not in TASKS and name.lower().endswith(".toml"):
        return read_task(Path(name))
    return get_task(name)
