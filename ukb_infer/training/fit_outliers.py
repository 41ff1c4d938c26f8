"""``modules fit-outliers``: projections or heads in, a module that knows ordinary scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from ukb_infer.errors import RunError, ScanError, UsageError
from ukb_infer.imaging.datasets import read_cases
from ukb_infer.imaging.readers.projection_file import load_projection
from ukb_infer.imaging.recipe import Recipe
from ukb_infer.modules import find_module, load_module
from ukb_infer.modules.manifest import VolumeInput
from ukb_infer.modules.module import add_outliers
from ukb_infer.modules.outliers import MIN_SCANS, drawn_scans, fit_reference
from ukb_infer.networks.device import choose_device
from ukb_infer.reasons import Reason
from ukb_infer.training.finetune.packing import read_in_order
from ukb_infer.training.packing import excluded_scans

if TYPE_CHECKING:
    from ukb_infer.modules import InferenceModule

_Found = TypeVar("_Found")


def run_fit_outliers(
    name: str, data: Path, device: str = "auto", progress: Callable[[int, int, int], None] | None = None
) -> list[str]:
    """Fit a module's outlier reference on ordinary scans without labels and write it into the module.

    Args:
        name: of the module, or its folder.
        data: projections written by ``project``, or for a module of heads a folder of sessions; of many, 2,000 are
            used. What the module cannot read is left out.
        device: auto, cpu, cuda or cuda:N.
        progress: told the finished, all and unusable scans.

    Returns:
        What was done, in lines for the user.

    Raises:
        UsageError: no folder, or too few scans.
        ModuleError: the module cannot be loaded or written.
    """
    folder = find_module(name)
    module = load_module(folder, choose_device(device), outliers=False)
    if not data.is_dir():
        made = "`ukb-infer project` makes one" if isinstance(module.recipe, Recipe) else "expected sessions of heads"
        raise UsageError(f"{data} is not a folder; {made}", field="data")
    scans = _projections(data, module.recipe) if isinstance(module.recipe, Recipe) else _heads(data, module)
    report = progress or (lambda *_: None)
    reference, count = fit_reference(
        module, scans.images(), lambda done: report(done + len(scans.unusable), scans.count, len(scans.unusable))
    )
    manifest = add_outliers(folder, reference, f"{count} scans given to fit-outliers")
    return [*scans.unusable, f"{folder}: {manifest.name} knows ordinary scans by {count} {scans.words}"]


@dataclass(frozen=True)
class _Scans:
    """Ordinary scans.

    Attributes:
        words: what they are.
        count: of those that are tried.
        unusable: told while they are read.
        images: reads them.
    """

    words: str
    count: int
    unusable: list[str]
    images: Callable[[], Iterator[NDArray[Any]]]


def _drawn(found: Sequence[_Found], data: Path, words: str) -> list[_Found]:
    if len(found) < MIN_SCANS:
        raise UsageError(f"{data} holds {len(found)} {words}, expected at least {MIN_SCANS}", field="data")
    return [found[k] for k in drawn_scans(len(found))]


def _projections(data: Path, recipe: Recipe) -> _Scans:
    left_out = excluded_scans(data)
    paths = _drawn(sorted(p for p in data.glob("*.npy") if p.stem not in left_out), data, "projections")
    unusable: list[str] = []

    def images() -> Iterator[NDArray[Any]]:
        for path in paths:
            try:
                yield load_projection(path, (recipe,))
            except ScanError as error:
                unusable.append(f"{path}: {error.message}; left out")
            except OSError as error:
                raise RunError(f"{path}: cannot be read ({error.strerror}); check access to it") from error

    return _Scans("projections", len(paths), unusable, images)


def _heads(data: Path, module: InferenceModule) -> _Scans:
    """Sessions with every contrast of the module."""
    read = module.manifest.input
    assert isinstance(read, VolumeInput)
    whole = [c for c in read_cases(data, read.modalities) if all(set(g) & set(c.images) for g in read.modalities)]
    cases = _drawn(whole, data, f"sessions with {', '.join(read.form.channels)}")
    unusable: list[str] = []

    def images() -> Iterator[NDArray[Any]]:
        for case, found in zip(cases, read_in_order(cases, read), strict=True):
            if isinstance(found, Reason):
                unusable.append(f"{next(iter(case.images.values())).parent}: {found.meaning}; left out")
            else:
                yield found.image

    return _Scans("heads", len(cases), unusable, images)
