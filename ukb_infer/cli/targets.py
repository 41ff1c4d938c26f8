"""``ukb-infer targets``."""

from __future__ import annotations

from typing import Annotated

import typer

from ukb_infer.cli import show


def targets(as_csv: Annotated[bool, typer.Option("--csv", help="Print the whole table as CSV.")] = False) -> None:
    """List the 72 targets, with unit, field and accuracy.

    The accuracy is that of the published MIMIR networks on people (10-fold cross-validation); it says nothing about any
    other module.

    Example:
        ukb-infer targets --csv > targets.csv
    """
    from ukb_infer.targets import TARGETS, registry_csv

    if as_csv:
        typer.echo(registry_csv(), nl=False)
        return
    rows, plain = [], [f"{'name':36} {'field':6} {'unit':24} {'ICC':>6} {'MAE':>7}  group"]
    for t in TARGETS.values():
        icc = "" if t.published.cv_icc is None else f"{t.published.cv_icc:.3f}"
        mae = "" if t.published.cv_mae is None else f"{t.published.cv_mae:g}"
        auc = "" if t.published.cv_auc is None else f" (AUC {t.published.cv_auc:.3f})"
        rows.append((t.name, t.field, t.unit, icc, mae, t.group + auc))
        plain.append(f"{t.name:36} {t.field:6} {t.unit:24} {icc:>6} {mae:>7}  {t.group}{auc}")
    show.table(("name", "field", "unit", ">ICC", ">MAE", "group"), rows, plain)
