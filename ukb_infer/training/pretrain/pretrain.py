"""``pretrain``: images without labels to an encoder."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ukb_infer._version import __version__
from ukb_infer.errors import UsageError
from ukb_infer.execution import RunLock, usable_cores
from ukb_infer.imaging.datasets import ImageRow, read_images
from ukb_infer.imaging.datasets.index import divide
from ukb_infer.imaging.datasets.names import PROJECTION
from ukb_infer.networks import Pretrained, save_pretrained
from ukb_infer.networks.device import choose_device
from ukb_infer.networks.encoder import need_monai
from ukb_infer.reasons import Kind
from ukb_infer.storage import atomic_write_text
from ukb_infer.training.distributed import Ranks, start_ranks, stop_ranks
from ukb_infer.training.preparing import Say
from ukb_infer.training.pretrain.batches import partners
from ukb_infer.training.pretrain.config import VALIDATION_SHARE, PretrainConfig, PretrainRequest
from ukb_infer.training.pretrain.pool import TABLE_NAME, Pool, Progress, make_pool, stamp_of
from ukb_infer.training.pretrain.pretrainer import Pretrainer, borrowed_torch
from ukb_infer.training.progress import StepDisplay
from ukb_infer.training.work import claim


def run_pretrain(
    request: PretrainRequest, say: Say = print, progress: Progress = lambda *_: None, *, show: bool = True
) -> Pretrained | None:
    """Pretrain an encoder and save it; a repeated call resumes.

    Args:
        request: what to pretrain on.
        say: receives messages.
        progress: called while images are read, with those done, in total, and failed.
        show: display the training's progress on stderr.

    Returns:
        The checkpoint; None for a dry run, and in all but the first process of torchrun.

    Raises:
        UsageError: no images of that dimension, or MONAI is missing.
        RunError: another pretraining in the folder, no usable image, a loss that is not finite.
    """
    need_monai()
    request.check_out()
    rows = chosen_rows(request)
    _describe(rows, request.config, say)
    if request.dry_run:
        say("nothing was written (dry run)")
        return None
    device = start_ranks(choose_device(request.device).type)
    ranks = Ranks.current()
    request.work.mkdir(parents=True, exist_ok=True)
    try:
        if not ranks.is_first:
            ranks.wait()
            _train(request, rows, device, request.threads or usable_cores(), lambda _: None, show=False)
            return None
        with RunLock(request.work):
            threads = _claim(request, rows)
            _report_failed(_pool(request, rows, progress), say, request)
            ranks.wait()
            trained, pool = _train(request, rows, device, threads, say, show=show)
            found = _pretrained(request, trained, pool)
            atomic_write_text(request.out / "README.md", _readme(request, found))
            save_pretrained(request.out, found)
    finally:
        stop_ranks()
    say(f"checkpoint {request.out}: {_judged(trained)}; adapt it with `ukb-infer adapt --pretrained {request.out}`")
    return found


def chosen_rows(request: PretrainRequest) -> list[ImageRow]:
    """Rows of the images table that have the dimension, divided into training and validation.

    Raises:
        UsageError: there are none.
    """
    config = request.config
    rows = [row for row in read_images(request.data) if (row.modality == PROJECTION) == (config.dim == 2)]
    if not any(row.status != "failed" for row in rows):
        what = "projections (.npy)" if config.dim == 2 else "volumes"
        raise UsageError(field="data", got=str(request.data), expected=f"usable {what}, or another `dim`")
    if not any(row.split == "validation" for row in rows):
        rows = divide(rows, VALIDATION_SHARE, 0)
    return rows


def _describe(rows: Sequence[ImageRow], config: PretrainConfig, say: Say) -> None:
    usable = [row for row in rows if row.status != "failed"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(row.modality for row in usable).most_common())
    people = len({(row.dataset, row.participant) for row in usable})
    say(f"{len(usable)} images of {people} participants ({kinds}); {len(rows) - len(usable)} cannot be used")
    if config.objective.views == 2:
        found = partners(usable, np.arange(len(usable)))
        alone = sum(own.tolist() == [k] for k, own in found.items())
        say(f"{len(usable) - alone} images have a partner, {alone} are paired with themselves")
    box = np.prod(config.box.size) * 2 if config.dim == 3 else 3 * 256 * 256
    say(
        f"{config.optimization.iterations} steps of {config.optimization.batch_size}; "
        f"about {len(usable) * box / 1e6:.0f} MB of preprocessed images"
    )


def _claim(request: PretrainRequest, rows: Sequence[ImageRow]) -> int:
    """Refuse to resume another pretraining; returns the number of threads."""
    config, work = request.config, request.work

    def remove() -> None:
        (work / "checkpoint.pt").unlink(missing_ok=True)
        (work / "history.csv").unlink(missing_ok=True)
        for folder in ("pictures", "tensorboard"):
            shutil.rmtree(work / folder, ignore_errors=True)

    stamp = stamp_of(rows, config.volumes if config.dim == 3 else None)
    settings = {"config": config.flat(), "images": stamp, "threads": request.threads or usable_cores()}
    return int(claim(work, settings, overwrite=request.overwrite, remove=remove, field="out")["threads"])


def _pool(request: PretrainRequest, rows: Sequence[ImageRow], progress: Progress) -> Pool:
    config = request.config
    workers = usable_cores() if request.workers is None else request.workers
    return make_pool(
        rows, request.work, config.volumes if config.dim == 3 else None, workers=workers, progress=progress
    )


def _report_failed(pool: Pool, say: Say, request: PretrainRequest) -> None:
    """Say which images are left out, and why."""
    if pool.failed:
        codes = Counter(code.value for row in pool.failed for code in row.codes if code.kind is Kind.FAILURE)
        listed = ", ".join(f"{count} {code}" for code, count in codes.items())
        say(f"{len(pool.failed)} images are left out ({listed}): see {request.work / TABLE_NAME}")


def _train(
    request: PretrainRequest, rows: Sequence[ImageRow], device: str, threads: int, say: Say, *, show: bool
) -> tuple[Pretrainer, Pool]:  # fmt: skip
    """Train on what is packed."""
    config = request.config
    pool = _pool(request, rows, lambda *_: None)
    sides: list[NDArray[np.int64]] = [
        np.array([k for k, row in enumerate(pool.rows) if row.split == side], np.int64)
        for side in ("train", "validation")
    ]
    train, valid = sides if sides[0].size else (sides[1], sides[0])
    display = StepDisplay("pretrain", config.every, "loss", show=show)
    with borrowed_torch(threads, device):
        trainer = Pretrainer(config, pool, train, valid, request.work, device, threads)
        if trainer.step:
            say(f"resuming after step {trainer.step}")
        try:
            trainer.run(display)
        finally:
            display.close()
    return trainer, pool


def _judged(trained: Pretrainer) -> str:
    best, steps = trained.best, trained.config.optimization.iterations
    if not np.isfinite(best.value):
        return f"{steps} steps"
    return f"validation loss {best.value:.3f} at step {best.iteration} of {steps}"


def _pretrained(request: PretrainRequest, trained: Pretrainer, pool: Pool) -> Pretrained:
    """What is kept, with where it comes from."""
    config, network = request.config, trained.network
    software = {"ukb-infer": __version__, "torch": str(torch.__version__), "monai": version("monai")}
    facts: dict[str, Any] = {
        "objective": config.objective.name,
        "steps": trained.step,
        "kept_step": trained.best.iteration,
        "validation_loss": trained.best.value if np.isfinite(trained.best.value) else None,
        "config": config.flat(),
        "images": len(pool.rows),
        "participants": len({(row.dataset, row.participant) for row in pool.rows}),
        "modalities": dict(Counter(row.modality for row in pool.rows)),
        "software": software,
        "warning": request.warning,
    }
    decoder = network.decoder.state_dict() if network.decoder is not None else {}
    return Pretrained(
        spec=config.spec, settings=config.input_settings(), state=network.encoder.state_dict(), decoder=decoder,
        facts=facts,
    )  # fmt: skip


def _readme(request: PretrainRequest, found: Pretrained) -> str:
    """What the checkpoint is, in words."""
    facts, settings = found.facts, found.settings
    kinds = ", ".join(f"{count} {kind}" for kind, count in facts["modalities"].items())
    loss = facts["validation_loss"]
    seen = "projections"
    if found.spec.dim == 3:
        box = " x ".join(map(str, settings["size"]))
        seen = f"a box of {box} voxels of {settings['spacing_mm']:g} mm, one contrast at a time"
    kept = f"Validation loss {loss:.3f} at step {facts['kept_step']}, whose weights are kept." if loss else ""
    lines = [
        f"# {request.out.name}",
        "",
        *([f"**{found.warning}**", ""] if found.warning else []),
        f"An encoder ({found.spec.preset}, {found.spec.dim}D) pretrained without labels by `ukb-infer pretrain` "
        f"{__version__}: objective {facts['objective']}, {facts['steps']} steps of {facts['config']['batch_size']} on "
        f"{facts['images']} images ({kinds}) of {facts['participants']} participants. It sees {seen}. {kept}".rstrip(),
        "",
        "It estimates nothing by itself: `ukb-infer adapt --pretrained` makes a module of it, `ukb-infer embed`",
        "writes its features. `pretrained.json`: all settings.",
        "",
    ]
    return "\n".join(lines)
