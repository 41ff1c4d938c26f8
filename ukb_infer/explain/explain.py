"""``explain``: scans in, a saliency map for every target and scan out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import ModuleError, ScanError, UsageError
from ukb_infer.inference.config import CommonConfig
from ukb_infer.inference.inputs import ScanInput
from ukb_infer.inference.scan_files import FileRun, run_scan_files
from ukb_infer.inference.work import Job, Outcome, writing
from ukb_infer.reasons import Reason
from ukb_infer.records import Projection
from ukb_infer.runs.summary import Progress, RunSummary
from ukb_infer.storage import save_array
from ukb_infer.text import suggest

if TYPE_CHECKING:
    from ukb_infer.explain.methods import Explained
    from ukb_infer.labels import Labels
    from ukb_infer.modules import InferenceModule, ModuleManifest

#: Written once into the folder: the picture from which explanations start.
BASELINE_NAME = "baseline.npy"
#: Folder of the projections that ``cohort`` aligns.
PROJECTIONS_NAME = "projections"
#: Most projections of a folder that are averaged into a baseline.
MOST_BASELINE_SCANS = 2000
Of = Literal["mean", "variance"]


@dataclass(frozen=True)
class ExplainConfig(CommonConfig):
    """Configuration of ``explain``; attributes as in :class:`CommonConfig`, and:

    Attributes:
        modules: names or folders; empty uses ``UKB_INFER_MODULES``.
        targets: to explain, at least one.
        method: key of ``ukb_infer.explain.methods.METHODS``.
        of: ``mean``, or ``variance`` for what makes the networks unsure.
        baseline: a projection, or a folder of them whose mean is taken; None for the module's own mean picture.
        device: auto, cpu, cuda or cuda:N.
        png: also write each map over its scan.
        cohort: also average the maps over the run.
        phenotypes: table with the sex of participants, for the averages.
    """

    modules: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    method: str = "integrated-gradients"
    of: Of = "mean"
    baseline: Path | None = None
    device: str = "auto"
    png: bool = True
    cohort: bool = False
    phenotypes: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        from ukb_infer.explain.methods import get_method

        get_method(self.method)
        if not self.targets:
            raise UsageError("none given; name one or more, e.g. AtlasVatVolume", field="targets")
        if self.of not in ("mean", "variance"):
            raise UsageError(field="of", got=self.of, expected="mean or variance")
        if self.phenotypes is not None and not self.cohort:
            raise UsageError("`phenotypes` is only used with `cohort`, whose averages it divides by sex")


@dataclass(frozen=True)
class Source:
    """The modules that have a target, and its place in each."""

    target: str
    folders: tuple[Path, ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class ExplainJob(Job):
    """One scan to explain; the attributes of :class:`Job`, and:

    Attributes:
        sources: what is explained, and by which modules.
        out: folder of the maps; None writes nothing.
        baseline: file of the picture that explanations start from.
        method, of, device, png: as in :class:`ExplainConfig`; png as ``pictures``.
    """

    sources: tuple[Source, ...] = ()
    out: Path | None = None
    baseline: Path | None = None
    method: str = ""
    of: Of = "mean"
    device: str = "cpu"
    pictures: bool = True

    def keep(self, made: Projection) -> Outcome:
        """Explain every target and write the maps."""
        baseline = np.load(self.baseline) if self.baseline is not None else np.zeros_like(made.image)
        for source in self.sources:
            saliency = explain_image(_explained(source, self.of, self.device), made.image, baseline, self.method)
            if self.out is not None:
                with writing(self.scan.key.scan):
                    self._write_map(saliency, made.image, source.target, self.out)
        return super().keep(made)

    def _write_map(self, saliency: NDArray[np.float32], image: NDArray[Any], target: str, folder: Path) -> None:
        from ukb_infer.explain.pictures import save_overlay

        path = map_path(folder, self.scan.key.scan, target)
        if self.pictures:
            save_overlay(saliency, image, path.with_suffix(".png"))
        save_array(path, saliency)


def map_path(folder: Path, scan: str, target: str) -> Path:
    """Where the map of a scan and target is.

    Args:
        folder: of the run.
        scan: its name.
        target: its name.
    """
    return folder / f"{scan}_{target}.npy"


@lru_cache(maxsize=128)
def _loaded(folder: Path, device: str) -> InferenceModule:
    """A module, loaded once in each process."""
    from ukb_infer.modules import load_module

    return load_module(folder, device)


def _explained(source: Source, of: Of, device: str) -> Explained:
    from ukb_infer.explain.methods import Explained

    return Explained([_loaded(folder, device) for folder in source.folders], source.places, of)


def explain_image(
    explained: Explained, image: NDArray[Any], baseline: NDArray[Any], method: str = "integrated-gradients"
) -> NDArray[np.float32]:
    """Saliency of every pixel of a projection.

    Args:
        explained: what is explained.
        image: (channels, rows, cols) of the recipe.
        baseline: likewise: the picture that explanations start from.
        method: key of ``ukb_infer.explain.methods.METHODS``.

    Returns:
        (rows, cols), finite and not negative.

    Raises:
        ScanError: the networks return NaN, or the scan is the baseline itself, so that the map is constant.
    """
    import torch

    from ukb_infer.explain.methods import attribute, to_saliency

    scalings = [module.scaling for module, _ in explained.modules_and_places]
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small networks gain nothing by more, and the workers share the cores
    try:
        attributions = attribute(method, explained, image, baseline)
    finally:
        torch.set_num_threads(before)
    saliency = to_saliency(attributions, scalings)
    if not np.isfinite(saliency).all():
        raise ScanError(Reason.NON_FINITE_ESTIMATE, "the networks returned NaN or infinity; look at the scan")
    if saliency.min() == saliency.max():
        raise ScanError(
            Reason.EMPTY_IMAGE, "the map is the same everywhere: no pixel matters to the estimate; choose another "
            "baseline or method"
        )  # fmt: skip
    return saliency


def run_explain(config: ExplainConfig, progress: Progress | None = None) -> RunSummary:
    """Explain every scan, continuing what is there.

    Args:
        config: of the run.
        progress: told how far it is.

    Returns:
        Counts, reasons and the exit code.

    Raises:
        UsageError: contradictory options, an unknown target, or another run in ``out``.
        ModuleError: a module cannot be used.
        RunError: no inputs, an unusable folder, a locked run.
    """
    from ukb_infer.networks.device import choose_device

    _require_captum()
    manifests = _manifests(config)
    sources, recipe = _sources(config, manifests), _recipe_of(next(iter(manifests.values())))
    device = str(choose_device(config.device))
    if device != "cpu":
        config = replace(config, workers=0)  # one process has the GPU
    _check_method(config, sources)
    picture = _baseline(config, sources, recipe)
    identity = config.base_identity(recipe) | {
        "modules": {m.name: m.hash for m in manifests.values()}, "targets": list(config.targets), "png": config.png,
        "cohort": config.cohort, "method": config.method, "of": config.of,
        "baseline": float(np.asarray(picture, np.float64).sum()),
    }  # fmt: skip
    place = config.out / BASELINE_NAME
    sexes = _read_sexes(config)  # complains before hours of work

    def job(scan: ScanInput, out: Path | None) -> ExplainJob:
        return ExplainJob(
            scan, config.reading, recipe, config.out / PROJECTIONS_NAME if config.cohort and out is not None else None,
            digest=config.verify, swaps=config.swaps, sources=sources, out=out,
            baseline=place if out is not None else None, method=config.method, of=config.of, device=device,
            pictures=config.png,
        )  # fmt: skip

    run = FileRun(
        name="explain",
        config=config,
        identity=identity,
        job=lambda scan: job(scan, config.out),
        try_job=lambda scan: job(scan, None),
        files=lambda key: [map_path(config.out, key.scan, target) for target in config.targets],
        all_files=lambda key: [
            map_path(config.out, key.scan, target).with_suffix(end) for target in config.targets for end in _ENDS
        ],
        megabytes=0.35 * len(config.targets),
        prepare=lambda: _prepare(config, picture),
    )
    summary = run_scan_files(run, progress)
    if config.cohort and not config.dry_run:
        from ukb_infer.explain.cohort import write_averages

        summary = replace(summary, files=(*summary.files, *write_averages(config, sexes)))
    return summary


_ENDS = (".npy", ".png")


def _read_sexes(config: ExplainConfig) -> Labels | None:
    """Sex of the participants, read by the rules of label tables; None without phenotypes."""
    if config.phenotypes is None:
        return None
    from ukb_infer.labels import read_labels

    return read_labels(config.at(config.phenotypes), ("sex",), option="phenotypes")


def _prepare(config: ExplainConfig, picture: NDArray[Any]) -> None:
    if config.cohort:
        (config.out / PROJECTIONS_NAME).mkdir(exist_ok=True)
    save_array(config.out / BASELINE_NAME, picture)


def _require_captum() -> None:
    try:
        import captum  # noqa: F401
    except ImportError as error:
        raise UsageError('explain needs captum; pip install "ukb-infer[explain]"') from error


def _manifests(config: ExplainConfig) -> dict[Path, ModuleManifest]:
    """The modules of the run by folder.

    Raises:
        ModuleError: they disagree on their recipe, or read volumes.
    """
    from ukb_infer.inference.engine import resolve_modules
    from ukb_infer.modules import read_manifest
    from ukb_infer.modules.manifest import ModuleInput

    manifests = {folder: read_manifest(folder) for folder in resolve_modules(config.modules)}
    for folder, manifest in manifests.items():
        if not isinstance(manifest.input, ModuleInput):
            raise ModuleError(f"{folder}: reads volumes of heads; only modules for projections can be explained")
    recipes = sorted({_recipe_of(m) for m in manifests.values()})
    if len(recipes) > 1:
        raise ModuleError(f"the modules have different recipes ({', '.join(recipes)}); explain them one by one")
    return manifests


def _recipe_of(manifest: ModuleManifest) -> str:
    return str(getattr(manifest.input, "recipe", ""))


def _check_method(config: ExplainConfig, sources: Sequence[Source]) -> None:
    """Refuse a method that a network does not allow.

    Raises:
        UsageError: Grad-CAM of a network that does not end in an average over maps.
    """
    folders = {folder for source in sources for folder in source.folders}
    members = [member for folder in folders for member in _loaded(folder, "cpu").members]
    if config.method == "gradcam" and not all(hasattr(member.model, "avgpool") for member in members):
        raise UsageError(
            field="method", got="gradcam", expected="another method: a network of the module has no last map to pool"
        )


def _sources(config: ExplainConfig, manifests: dict[Path, ModuleManifest]) -> tuple[Source, ...]:
    """The modules of every target.

    Raises:
        UsageError: no module has a target.
    """
    from ukb_infer.modules.card import listed

    known = sorted({name for m in manifests.values() for name in m.target_names})
    found = []
    for target in config.targets:
        having = {f: m.target_names.index(target) for f, m in manifests.items() if target in m.target_names}
        if not having:
            near = suggest(target, known) or f"; they have {listed(known)}"
            raise UsageError(f"no module predicts {target!r}{near}", field="targets")
        found.append(Source(target, tuple(having), tuple(having.values())))
    return tuple(found)


def _baseline(config: ExplainConfig, sources: tuple[Source, ...], recipe: str) -> NDArray[Any]:
    """The picture that explanations start from: as given, or the mean picture of the modules' reference scans.

    Raises:
        UsageError: none is known.
    """
    if config.baseline is not None:
        return mean_picture(config.at(config.baseline), recipe)
    pictures = []
    for folder in dict.fromkeys(folder for source in sources for folder in source.folders):
        reference = _loaded(folder, "cpu").outliers
        if reference is None or reference.picture is None:
            raise UsageError(
                f"{folder.name} holds no mean picture of its reference scans; give a folder of projections of ordinary "
                "scans, or add the picture to the module with `ukb-infer modules fit-outliers`",
                field="baseline",
            )
        pictures.append(reference.picture.astype(np.float32))
    return np.asarray(np.mean(pictures, axis=0), np.float32)


def mean_picture(path: Path, recipe: str) -> NDArray[np.float32]:
    """A projection, or the mean of a folder of them.

    Args:
        path: of the projection or folder.
        recipe: of the projections.

    Returns:
        (channels, rows, cols).

    Raises:
        UsageError: there is none.
    """
    from ukb_infer.imaging.readers.projection_file import load_projection
    from ukb_infer.imaging.recipes import get_recipe

    chosen = get_recipe(recipe)
    paths = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    if not paths:
        raise UsageError(f"{path} holds no projections (.npy); `ukb-infer project` makes them", field="baseline")
    step = max(1, len(paths) // MOST_BASELINE_SCANS)
    total, count = np.zeros(chosen.shape), 0
    for file in paths[::step]:
        try:
            total += load_projection(file, (chosen,))
        except (ScanError, OSError) as error:
            raise UsageError(f"{file}: {error}", field="baseline") from error
        count += 1
    return np.asarray(total / count, np.float32)
