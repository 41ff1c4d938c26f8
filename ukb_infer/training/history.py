"""Learning curves: per member, of all members, TensorBoard, and the overfitting warning."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ukb_infer.storage import atomic_write_text
from ukb_infer.training.objectives import Objective

HISTORY_NAME = "history.csv"


def write_history(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write one member's curves.

    Args:
        folder: of the member.
        rows: one per validation.
    """
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    atomic_write_text(folder / HISTORY_NAME, buffer.getvalue())


def read_histories(work: Path, members: int) -> str:
    """Curves of all members in one table.

    Args:
        work: folder of the training.
        members: their number.
    """
    lines: list[str] = []
    for member in range(1, members + 1):
        content = (work / f"member{member}" / HISTORY_NAME).read_text(encoding="utf-8").splitlines()
        if not lines and content:
            lines.append(f"member,{content[0]}")
        lines += [f"{member},{row}" for row in content[1:]]
    return "\n".join(lines) + "\n"


def warn_of_overfitting(table: str, objective: Objective, say: Callable[[str], None]) -> None:
    """Warn of overfitting, where training and validation diverge.

    Args:
        table: of :func:`read_histories`.
        objective: whose first measure is compared.
        say: receives the warning.
    """
    rows, apart = list(csv.DictReader(io.StringIO(table))), []
    measure = objective.measures[0]
    members = list(dict.fromkeys(row["member"] for row in rows))
    for member in members:
        curve = [row for row in rows if row["member"] == member]
        kept = min(curve, key=lambda row: float(row[f"valid_{measure}"]))
        train, valid = float(kept[f"train_{measure}"]), float(kept[f"valid_{measure}"])
        if valid - train > objective.overfitted:
            apart.append((valid - train, member, train, valid, kept["iteration"]))
    if apart:
        _, member, train, valid, iteration = max(apart)
        say(
            f"WARNING: {len(apart)} of {len(members)} networks are overfitted: they predict training scans much better "
            f"than others (network {member}: training {measure.upper()} {train:.2f}, validation {measure.upper()} "
            f"{valid:.2f}, at the kept iteration {iteration}). Their own sd is too small; `cross-validate` and "
            "`calibrate` correct the intervals. More labels, or fewer targets at a time, help"
        )


class TensorBoardLog:
    """Learning curves for TensorBoard, if installed (extra ``train``).

    Args:
        folder: of the member; events go to ``tensorboard`` inside.
    """

    def __init__(self, folder: Path) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def write(self, values: Mapping[str, float]) -> None:
        """Add one point to every curve."""
        if self._writer is not None:
            for name, value in values.items():
                if name != "iteration":
                    self._writer.add_scalar(name, value, int(values["iteration"]))

    def close(self) -> None:
        """Flush."""
        if self._writer is not None:
            self._writer.close()
