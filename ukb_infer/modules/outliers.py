"""How unlike a module's reference scans a scan is, judged by the features of its networks.

The features of every member (the pooled output of its encoder) are scaled to length one and joined. Their principal
directions on reference scans give the score: the squared Mahalanobis distance within the first directions, a direction,
plus the squared distance from them, relative to that of the reference scans (Lee et al. 2018; Moghaddam and Pentland
1997). Distances to the nearest neighbours were compared and find less: see docs/outliers.md.

A score becomes a percentile by the scores of reference scans that had no part in the fit (cross-fitting in ten
folds). The upper 5 % of the scores (at least 10) are replaced by a Pareto tail (Hill 1975), so that a module with few
reference scans can flag a scan too.

The reference also holds how far the estimates of ordinary scans break the rules of ``ukb_infer.targets.rules``
(:mod:`ukb_infer.modules.plausibility`), and their mean picture, from which explanations start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes
from scipy.linalg import eigh

from ukb_infer.errors import ModuleError, UsageError
from ukb_infer.modules.plausibility import fit_rules
from ukb_infer.regression import Mixture

if TYPE_CHECKING:
    from ukb_infer.imaging.recipe import ImageForm
    from ukb_infer.modules.module import InferenceModule

Float64 = NDArray[np.float64]

OUTLIERS_NAME = "outliers.safetensors"
#: Principal directions kept, and reference scans needed for each.
DIRECTIONS, SCANS_PER_DIRECTION = 64, 10
#: Fewest reference scans, and most; of more these many are drawn.
MIN_SCANS, MAX_SCANS = 40, 2000
FOLDS = 10
#: Share of the scores that the Pareto tail describes, and fewest of them.
TAIL, MIN_TAIL = 0.05, 10
_SEED = 20_201
_BATCH = 16
#: Arrays of the file and their dimensions; rules follow under names with this prefix.
_SHAPES, _RULE = {"mean": 1, "components": 2, "variances": 1, "rest": 0, "scores": 1}, "rule "
_PICTURE, _CALIBRATION = "picture", "calibration"


@dataclass(frozen=True)
class OutlierReference:
    """What the features of reference scans look like.

    Attributes:
        mean: (D,) of the joined features, D = members x features.
        components: (C, D) orthonormal principal directions.
        variances: (C,) along them.
        rest: () variance outside them.
        scores: (n,) rising: scores of reference scans that had no part in their fit.
        rules: limits of the rules, as ``plausibility.fit_rules`` gives them; in modules made before, the median and the
            largest deviation of each residual in natural units. Empty where the reference scans are too few.
        calibration: (T,) factors on the targets' variances that the rules were fitted with; None in modules made
            before they were kept.
        picture: (channels, rows, cols) mean of the reference scans, rounded to the recipe's type; None in modules
            made before it was kept.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    variances: NDArray[np.float32]
    rest: NDArray[np.float32]
    scores: NDArray[np.float32]
    rules: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    calibration: NDArray[np.float32] | None = None
    picture: NDArray[Any] | None = None

    def score(self, features: NDArray[Any]) -> Float64:
        """(K, N, F) features to (N,) scores: about 2 for an ordinary scan, NaN where a feature is not finite."""
        return _score(join_features(features), self.mean, self.components, self.variances, float(self.rest))

    def percentile(self, features: NDArray[Any]) -> Float64:
        """(K, N, F) features to (N,) percentiles in 0-100, uniform on scans like the reference."""
        return _percentile(self.score(features), self.scores.astype(np.float64))

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        arrays = {name: np.asarray(getattr(self, name), order="C") for name in _SHAPES}
        for name, more in ((_PICTURE, self.picture), (_CALIBRATION, self.calibration)):
            arrays |= {} if more is None else {name: np.asarray(more, order="C")}
        return bytes(to_bytes(arrays | {_RULE + words: limits for words, limits in self.rules.items()}))


def join_features(features: NDArray[Any]) -> Float64:
    """(K, N, F) features to (N, K F): each member's scaled to length one, members side by side."""
    values = np.moveaxis(np.asarray(features, np.float64), 0, 1)
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.reshape(values / np.where(lengths == 0.0, 1.0, lengths), (len(values), -1))


def _score(joined: Float64, mean: Any, components: Any, variances: Any, rest: float) -> Float64:
    offset = joined - mean
    along = offset @ np.asarray(components, np.float64).T
    outside = np.maximum((offset**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
    return np.asarray((along**2 / variances).mean(axis=1) + outside / rest)


def _directions(joined: Float64, count: int) -> tuple[Float64, Float64, Float64, float]:
    """Mean, the first principal directions, the variances along them and the variance outside."""
    mean = joined.mean(axis=0)
    offset = joined - mean
    wide = len(joined) <= joined.shape[1]
    products = offset @ offset.T if wide else offset.T @ offset
    side = len(products)
    lengths, vectors = eigh(products, subset_by_index=(max(0, side - count), side - 1))
    rows = (vectors.T @ offset if wide else vectors.T)[::-1]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    variances = np.maximum(lengths[::-1], 0.0) / len(joined)
    total = float((offset**2).sum()) / len(joined)
    smallest = 1e-12 * max(total, 1e-30)  # identical scans have no variance at all
    return mean, rows, np.maximum(variances, smallest), max(total - float(variances.sum()), smallest)


def _percentile(score: Float64, reference: Float64) -> Float64:
    """Rank among the reference scores; beyond the 95th percentile by a Pareto tail."""
    n = len(reference)
    rank = (np.searchsorted(reference, score, side="left") + np.searchsorted(reference, score, side="right")) / 2
    ordinary = (rank + 0.5) / (n + 1)
    share = max(TAIL, MIN_TAIL / n)
    start = float(np.quantile(reference, 1.0 - share))
    beyond = reference[reference > start]
    exponent = 1.0 / max(float(np.log(beyond / start).mean()), 1e-9) if len(beyond) and start > 0 else np.inf
    with np.errstate(divide="ignore", invalid="ignore"):  # a reference of identical scans
        tail = 1.0 - share * np.exp(-exponent * np.log(np.maximum(score / start, 1.0)))
    found = np.where(score > start, tail, np.minimum(ordinary, 1.0 - share))
    return np.asarray(np.where(np.isfinite(score), 100.0 * found, np.nan))


def drawn_scans(count: int) -> NDArray[np.int64]:
    """Numbers of the scans that become the reference, rising: all, or ``MAX_SCANS`` of them, always the same."""
    return np.sort(np.random.default_rng(_SEED).permutation(count)[:MAX_SCANS])


def fit_outliers(features: NDArray[Any]) -> OutlierReference:
    """Reference of a module from the features of ordinary scans.

    Args:
        features: (K, N, F) of N scans, best ones that the module was not trained on.

    Returns:
        The same for the same scans in the same order.

    Raises:
        UsageError: fewer scans than ``MIN_SCANS``, or a feature that is not finite.
    """
    joined = join_features(features)
    if len(joined) < MIN_SCANS:
        raise UsageError(f"{len(joined)} scans, expected at least {MIN_SCANS} to know what an ordinary scan looks like")
    if not np.isfinite(joined).all():
        raise UsageError("the networks returned features that are NaN or infinite, expected finite ones")
    order = np.random.default_rng(_SEED).permutation(len(joined))[:MAX_SCANS]
    joined, fold = joined[order], np.arange(len(order)) % FOLDS
    count = min(DIRECTIONS, int((fold != 0).sum()) // SCANS_PER_DIRECTION, max(1, joined.shape[1] // 2))
    scores = np.empty(len(joined))
    for k in range(FOLDS):
        scores[fold == k] = _score(joined[fold == k], *_directions(joined[fold != k], count))
    mean, components, variances, rest = _directions(joined, count)
    small = np.float32
    return OutlierReference(
        mean.astype(small), components.astype(small), variances.astype(small), np.asarray(rest, small),
        np.sort(scores).astype(small),
    )  # fmt: skip


def fit_reference(
    module: InferenceModule, images: Iterable[NDArray[Any]], report: Callable[[int], None] = lambda _: None
) -> tuple[OutlierReference, int]:
    """Reference of a module from projections of ordinary scans.

    Args:
        module: whose networks are asked, on its device.
        images: of the module's recipe, each (channels, rows, cols).
        report: told how many are done, after each batch.

    Returns:
        The reference, and the number of projections.

    Raises:
        UsageError: too few projections.
    """
    seen = _MeanPicture(module.recipe)
    features, estimates = features_of(module, seen.watch(images), report)
    reference, manifest = fit_outliers(features), module.manifest
    rules = fit_rules(manifest.target_names, estimates)
    factors = np.array([target.calibration.factor for target in manifest.targets], np.float32)
    return replace(reference, rules=rules, calibration=factors, picture=seen.mean), len(estimates.mean)


class _MeanPicture:
    """Mean of the pictures that pass by."""

    def __init__(self, form: ImageForm) -> None:
        self._total, self._count, self._dtype = np.zeros(form.shape), 0, np.dtype(form.dtype)

    def watch(self, images: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """The same pictures."""
        for image in images:
            self._total += image
            self._count += 1
            yield image

    @property
    def mean(self) -> NDArray[Any]:
        """(channels, rows, cols), rounded to the recipe's type."""
        mean = self._total / max(1, self._count)
        return (mean.round() if self._dtype.kind in "iu" else mean).astype(self._dtype)


def features_of(
    module: InferenceModule, images: Iterable[NDArray[Any]], report: Callable[[int], None] = lambda _: None
) -> tuple[NDArray[np.float32], Mixture]:
    """Features of every member, (K, N, F) float32, and calibrated estimates, (N, T) in natural units.

    Args:
        module: whose networks are asked, on its device.
        images: of the module's recipe, each (channels, rows, cols).
        report: told how many are done, after each batch.
    """
    import torch

    none = np.empty((0, len(module.manifest.targets)))
    rest, parts, estimates, done = iter(images), [], [Mixture(none, none, none)], 0
    while batch := list(islice(rest, _BATCH)):
        heads, features = module.predict_with_features(torch.from_numpy(np.stack(batch)))
        parts.append(features)
        estimates.append(module.to_estimates(heads))
        done += len(batch)
        report(done)
    joined = Mixture(*(np.concatenate([getattr(e, f.name) for e in estimates]) for f in fields(Mixture)))
    return np.concatenate(parts, axis=1) if parts else np.empty((len(module.members), 0, 1), np.float32), joined


def read_outliers(path: Path, width: int, targets: int) -> OutlierReference:
    """Read and check the reference of a module.

    Args:
        path: of ``outliers.safetensors``.
        width: members x features of the module.
        targets: number of its targets.

    Raises:
        ModuleError: unreadable, or of another shape than the module's features.
    """
    try:
        found = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModuleError(f"{path}: cannot be read as safetensors ({error}); copy the module again") from error
    picture, calibration = found.pop(_PICTURE, None), found.pop(_CALIBRATION, None)
    rules = {name.removeprefix(_RULE): found.pop(name) for name in list(found) if name.startswith(_RULE)}
    right = set(found) == set(_SHAPES) and all(v.shape in ((2,), (4,)) for v in rules.values())
    right = right and (calibration is None or (calibration.shape == (targets,) and bool((calibration > 0).all())))
    right = right and all(v.ndim == _SHAPES.get(n, 1) for n, v in found.items())
    right = right and all(v.dtype == np.float32 and np.isfinite(v).all() for v in (*found.values(), *rules.values()))
    if right:
        count = len(found["components"])
        right = found["mean"].shape == (width,) and found["components"].shape == (count, width)
        right = right and found["variances"].shape == (count,) and len(found["scores"]) >= MIN_SCANS
        right = right and bool((found["variances"] > 0).all()) and float(found["rest"]) > 0
    if not right:
        raise ModuleError(
            f"{path}: does not hold the reference of {width} features; make it again with "
            "`ukb-infer modules fit-outliers`"
        )
    return OutlierReference(**found, rules=rules, calibration=calibration, picture=picture)
