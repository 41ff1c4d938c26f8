"""``train``: labels and projections to a module."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ukb_infer._version import __version__
from ukb_infer.errors import RunError
from ukb_infer.execution import RunLock
from ukb_infer.modules import InferenceModule, ModuleManifest, save_module, verify_module
from ukb_infer.modules.card import (
    CALIBRATION,
    CARD_NAME,
    Card,
    calibration_markdown,
    card_markdown,
    known_of_module,
    limits_of_module,
)
from ukb_infer.modules.manifest import MANIFEST_NAME, OutlierFile
from ukb_infer.modules.outliers import MIN_SCANS, OutlierReference, drawn_scans, fit_reference
from ukb_infer.networks.device import choose_device
from ukb_infer.training.distributed import Ranks, start_ranks, stop_ranks
from ukb_infer.training.history import HISTORY_NAME, read_histories, warn_of_overfitting
from ukb_infer.training.preparing import Prepared, Say, count_only, prepare, read_request_labels
from ukb_infer.training.request import TrainRequest


def run_train(request: TrainRequest, say: Say = print) -> ModuleManifest | None:
    """Train an ensemble and save it as a verified module; a repeated call resumes.

    Args:
        request: what to train.
        say: receives messages.

    Returns:
        The manifest; None for a dry run, and in all but the first process of torchrun.

    Raises:
        UsageError: contradictory options or unusable labels.
        RunError: missing files, another training in the working folder, a loss that is not finite.
    """
    request.check_out(MANIFEST_NAME)
    labels = read_request_labels(request, say)
    if request.dry_run:
        count_only(request, labels, say)
        return None
    device = start_ranks(choose_device(request.device).type)
    ranks = Ranks.current()
    request.work_folder.mkdir(parents=True, exist_ok=True)
    try:
        if not ranks.is_first:
            ranks.wait()
            prepare(request, labels, device, lambda _: None).train(show=False)
            return None
        with RunLock(request.work_folder):
            prepared = prepare(request, labels, device, say)
            ranks.wait()
            manifest = _train(prepared, say)
    finally:
        stop_ranks()
    problems = verify_module(request.out)
    if problems:
        raise RunError(
            f"{request.out}: the module was written but is damaged: {problems[0]}; check the storage and train again"
        )
    say(f"module {request.out}: {len(manifest.members)} members, {len(manifest.targets)} targets, verified")
    return manifest


def _train(prepared: Prepared, say: Say) -> ModuleManifest:
    """Train the members and make the module."""
    request = prepared.request
    networks = prepared.train()
    curves = read_histories(request.work_folder, request.config.ensemble.members)
    warn_of_overfitting(curves, request.config.objective, say)
    manifest = prepared.manifest()
    outliers = _reference(InferenceModule(manifest, networks, choose_device(request.device)), prepared, say)
    extra = {"README.md": _readme(prepared), CARD_NAME: _card(prepared, manifest, outliers), HISTORY_NAME: curves}
    return save_module(request.out, manifest, networks, overwrite=request.overwrite, extra=extra, outliers=outliers)


def _reference(module: InferenceModule, prepared: Prepared, say: Say) -> tuple[OutlierReference, str] | None:
    """What the training scans look like to the networks, and which those are; None for too few."""
    images = prepared.packed.data.images
    if len(images) < MIN_SCANS:
        say(f"no outlier reference: {len(images)} scans, {MIN_SCANS} are needed (`modules fit-outliers` adds it later)")
        return None
    reference, count = fit_reference(module, (images[k] for k in drawn_scans(len(images))))
    return reference, f"{count} training scans"


def _card(prepared: Prepared, manifest: ModuleManifest, outliers: tuple[OutlierReference, str] | None) -> str:
    data = prepared.packed.data
    if outliers is not None:  # its file has no name yet
        manifest = replace(manifest, outputs=replace(manifest.outputs, outliers=OutlierFile("", "", outliers[1])))
    counts = np.isfinite(data.labels).sum(axis=0)
    lined = zip(manifest.targets, counts, strict=True)
    rows = [f"| {t.name} | {t.unit} | {n} | {t.mean:.4g} | {t.sd:.4g} |" for t, n in lined]
    table = "\n".join(["| target | unit | labels | mean | sd |", "|---|---|---|---|---|", *rows])
    people = np.unique(data.participants).size
    known = known_of_module(manifest) | {"21": f"{len(data.labels)} scans of {people} participants; labels: see above."}
    tables = {
        "Training data": table,
        "Accuracy": "Not known here: `ukb-infer cross-validate` and `evaluate` write it into a card of their own.",
        CALIBRATION: calibration_markdown(manifest),
    }
    limits = limits_of_module(manifest)
    card = Card(name=manifest.name, warning=manifest.warning, known=known, limits=limits, tables=tables)
    return card_markdown(card)


def _readme(prepared: Prepared) -> str:
    request, data = prepared.request, prepared.packed.data
    config, share = request.config, request.config.validation.share
    ensemble = config.ensemble
    lines = [
        f"# {request.out.name}",
        "",
        *([f"**{request.warning}**", ""] if request.warning else []),
        f"{ensemble.members} {config.network.backbone} networks trained by `ukb-infer train` {__version__} on "
        f"{len(data.labels)} scans of {np.unique(data.participants).size} participants, "
        f"{config.optimization.iterations} iterations each; "
        + (f"member k left out fold k of {ensemble.folds}." if ensemble.folds else "no fold was left out.")
        + (
            f" Each was validated on {100 * share:g} % of its participants and kept its best weights."
            if share
            else " The last weights were kept."
        ),
        "",
        "| target | unit | labels |",
        "|---|---|---|",
    ]
    counts = np.isfinite(data.labels).sum(axis=0)
    for name, count in zip(data.targets, counts, strict=True):
        lines.append(f"| {name} | {prepared.labels.specs[name].unit} | {count} |")
    return "\n".join([*lines, "", "`history.csv`: learning curves. `module.json`: everything else.", ""])
