"""``modules fit-outliers``: projections in, a module that knows ordinary scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ukb_infer.errors import RunError, ScanError, UsageError
from ukb_infer.imaging.readers.projection_file import load_projection
from ukb_infer.imaging.recipe import Recipe
from ukb_infer.modules import find_module, load_module
from ukb_infer.modules.module import add_outliers
from ukb_infer.modules.outliers import MIN_SCANS, drawn_scans, fit_reference
from ukb_infer.networks.device import choose_device
from ukb_infer.training.packing import excluded_scans


def run_fit_outliers(
    name: str, projections: Path, device: str = "auto", progress: Callable[[int, int, int], None] | None = None
) -> list[str]:
    """Fit a module's outlier reference on a folder of projections and write it into the module.

    Args:
        name: of the module, or its folder.
        projections: written by ``project``; of many, 2,000 are used; a file that is no projection of the
            module's recipe is left out.
        device: auto, cpu, cuda or cuda:N.
        progress: told the finished, all and unusable projections.

    Returns:
        What was done, in lines for the user.

    Raises:
        UsageError: no folder, or too few projections.
        ModuleError: the module cannot be loaded or written.
    """
    folder = find_module(name)
    module = load_module(folder, choose_device(device))
    recipe = module.recipe
    if not isinstance(recipe, Recipe):
        raise UsageError(f"{module.manifest.name} is for volumes; its reference is fitted by `adapt`", field="module")
    if not projections.is_dir():
        raise UsageError(f"{projections} is not a folder; `ukb-infer project` makes one", field="projections")
    left_out = excluded_scans(projections)
    paths = sorted(p for p in projections.glob("*.npy") if p.stem not in left_out)
    if len(paths) < MIN_SCANS:
        raise UsageError(
            f"{projections} holds {len(paths)} projections, expected at least {MIN_SCANS}", field="projections"
        )
    paths = [paths[k] for k in drawn_scans(len(paths))]
    unusable: list[str] = []

    def images() -> Iterator[NDArray[Any]]:
        for path in paths:
            try:
                yield load_projection(path, (recipe,))
            except ScanError as error:
                unusable.append(f"{path}: {error.message}; left out")
            except OSError as error:
                raise RunError(f"{path}: cannot be read ({error.strerror}); check access to it") from error

    report = progress or (lambda *_: None)
    reference, count = fit_reference(
        module, images(), lambda done: report(done + len(unusable), len(paths), len(unusable))
    )
    manifest = add_outliers(folder, reference, f"{count} scans given to fit-outliers")
    return [*unusable, f"{folder}: {manifest.name} knows ordinary scans by {count} projections"]
