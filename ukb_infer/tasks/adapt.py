"""``adapt``: a task and labelled cases to a module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ukb_infer.errors import UsageError
from ukb_infer.modules import ModuleManifest
from ukb_infer.modules.find import shipped_modules_folder, shipped_with
from ukb_infer.networks.pretrained import FACTS_NAME
from ukb_infer.targets import TARGETS, TargetSpec
from ukb_infer.tasks.files import find_task
from ukb_infer.tasks.task import Task
from ukb_infer.text import suggest
from ukb_infer.training.finetune.config import FinetuneRequest
from ukb_infer.training.finetune.finetune import run_finetune
from ukb_infer.training.finetune.packing import Progress
from ukb_infer.training.preparing import Say


def run_adapt(
    task: str | Task, data: Path, out: Path, *, say: Say = print, progress: Progress = lambda *_: None,
    show: bool = True, **settings: Any,
) -> ModuleManifest | None:  # fmt: skip
    """Adapt a pretrained encoder to a task; a repeated call resumes.

    Args:
        task: name in the registry, a ``.toml`` file, or the task itself.
        data: folder of cases (finetuning, FOMO60K or BIDS layout), or of projections.
        out: folder of the module.
        say: receives messages.
        progress: told the finished, all and unusable cases while they are read.
        show: display the training's progress on stderr.
        settings: further attributes of :class:`~ukb_infer.training.finetune.config.FinetuneRequest`: ``pretrained``,
            ``shots``, ``folds``, ``preset``, ``seed``, ``labels`` ...

    Returns:
        The manifest; None for a dry run.

    Raises:
        UsageError: unknown task, contradictory settings, or no labelled cases.
        RunError: as :func:`~ukb_infer.training.finetune.finetune.run_finetune`.
    """
    return run_finetune(make_request(task, data, out, **settings), say, progress, show=show)


def make_request(task: str | Task, data: Path, out: Path, **settings: Any) -> FinetuneRequest:
    """The request of a task.

    Args:
        task: name in the registry, a ``.toml`` file, or the task itself.
        data: folder of cases or projections.
        out: folder of the module.
        settings: further attributes of the request.

    Raises:
        UsageError: unknown task, one without labels to learn, or contradictory settings.
    """
    found = find_task(task) if isinstance(task, str) else task
    if found.output == "embedding":
        raise UsageError(
            f"{found.name} has nothing to learn: `ukb-infer embed` makes its embeddings, `probe` judges them",
            field="task",
        )
    if settings.get("pretrained") is not None:
        settings["pretrained"] = _known_checkpoint(settings["pretrained"])
    return FinetuneRequest(
        task=found.name, title=found.title, data=data, out=out, dimension=found.dimension, inputs=found.inputs,
        output=found.output, targets=tuple(map(_spec, found.targets, [found] * len(found.targets))), **settings,
    )  # fmt: skip


def find_checkpoint(folder: Path) -> Path:
    """The folder itself if it is a checkpoint; else the one of that name that is shipped with the package."""
    shipped = shipped_modules_folder() / folder
    here = (folder / FACTS_NAME).is_file() or not (shipped / FACTS_NAME).is_file()
    return folder if here else shipped


def _known_checkpoint(folder: Path) -> Path:
    """As :func:`find_checkpoint`; refuses what is none."""
    found = find_checkpoint(folder)
    if not (found / FACTS_NAME).is_file():
        known = shipped_with(FACTS_NAME)
        raise UsageError(
            f"no checkpoint {str(folder)!r}: neither a folder written by `pretrain` nor one of: {', '.join(known)}"
            f"{suggest(str(folder), known)}",
            field="pretrained",
        )
    return found


def _spec(target: Any, task: Task) -> TargetSpec:
    """The target of the registry for projections, which have fields and units of labels; else the task's own."""
    if task.dimension == 2 and target.name in TARGETS:
        return TARGETS[target.name]
    kind = "binary" if task.output == "class" else "continuous"
    return TargetSpec(target.name, "", target.unit, "", kind, target.lower, target.upper)  # type: ignore[arg-type]
