"""Results on stdout: tables drawn by rich on a terminal, plain and stable lines elsewhere.

rich respects the width and encoding of the terminal and NO_COLOR; it is imported only for a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any, Literal

import typer

from ukb_infer.console import stdout_is_terminal


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], plain: Iterable[str]) -> None:
    """Print a table.

    Args:
        columns: titles; a leading ``>`` right-aligns the column.
        rows: one cell per column.
        plain: the same as lines, for files, pipes and scripts.
    """
    if not stdout_is_terminal():
        for line in plain:
            typer.echo(line)
        return
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for k, title in enumerate(columns):
        justify: Literal["left", "right"] = "right" if title.startswith(">") else "left"
        whole = not any(" " in row[k] for row in rows)  # names stay in one piece, sentences are wrapped
        drawn.add_column(title.removeprefix(">"), justify=justify, overflow="fold", no_wrap=whole)
    for row in rows:
        drawn.add_row(*row)
    _print(drawn)


def interval(metric: Any) -> str:
    """A :class:`~ukb_infer.evaluation.MetricValue` as ``0.71 [0.6, 0.8]``; ``-`` where it is not defined (NaN)."""
    if isnan(metric.value):
        return "-"
    inside = "" if isnan(metric.low) else f" [{metric.low:.4g}, {metric.high:.4g}]"
    return f"{metric.value:.4g}{inside}"


def markdown(text: str) -> None:
    """Print text with Markdown tables, which are drawn on a terminal."""
    if not stdout_is_terminal():
        typer.echo(text)
        return
    from rich.markdown import Markdown

    _print(Markdown(text))


def _print(drawn: Any) -> None:
    from rich.console import Console

    Console(markup=False, highlight=False).print(drawn)
