"""A loaded module: the networks and the numerical steps after them."""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from scipy.special import expit
from torch import Tensor

from ukb_infer.errors import ModuleError, UkbInferError, UsageError
from ukb_infer.modules.calibration import half_width_of
from ukb_infer.modules.card import CARD_NAME, update_card
from ukb_infer.modules.find import find_module
from ukb_infer.modules.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    MemberFile,
    ModuleInput,
    ModuleManifest,
    ModuleOutputs,
    OutlierFile,
    VolumeInput,
    check_member_file,
    parse_manifest,
    read_manifest,
)
from ukb_infer.modules.outliers import OutlierReference, read_outliers
from ukb_infer.modules.plausibility import rescale_rules
from ukb_infer.modules.visits import VISITS_NAME
from ukb_infer.networks import InputScaling, MeanVarianceNetwork, build_network, speed
from ukb_infer.networks.build import PROJECTION
from ukb_infer.networks.compiled import WORTH_COMPILING, CompiledMembers, choose_backend
from ukb_infer.networks.speed import DTYPES, Call, Precision
from ukb_infer.regression import Mixture, calibrate, combine_members, convert_units, destandardize, variance_from_raw
from ukb_infer.storage import atomic_write_bytes, atomic_write_text, sha256_file

if TYPE_CHECKING:
    from ukb_infer.networks.segmentation import SegmentationNetwork

#: A network of a module.
Member: TypeAlias = "MeanVarianceNetwork | SegmentationNetwork"
README_NAME = "README.md"
#: Volumes reach the networks as they were preprocessed.
AS_IT_IS = InputScaling()


class NetworkOutput(NamedTuple):
    """Outputs of K members for N images, in standardized space.

    Attributes:
        mean: (K, N, T).
        log_variance: (K, N, T) raw outputs: the manifest's ``log_variance`` says how to convert them.
        features: (K, N, F) pooled vectors between encoder and head; None if not requested.
    """

    mean: Tensor
    log_variance: Tensor
    features: Tensor | None


class RawOutput(NamedTuple):
    """Outputs of K members for N images as :meth:`InferenceModule.launch` leaves them on the device.

    Attributes:
        heads: (K, N, T, 2) float32: mean and raw log-variance in standardized units; of a class a logit, and a number
            without meaning; of a segmentation the labels' volumes in ml and the logarithm of their variance.
        features: (K, N, F) float32 where the module has an outlier reference; else None.
        probabilities: (N, labels, x, y, z) float32 of a segmentation, the mean of the members, the background first.
    """

    heads: Tensor
    features: Tensor | None
    probabilities: Tensor | None = None


class InferenceModule:
    """Released weights with their manifest, ready to predict.

    Args:
        manifest: content of ``module.json``.
        members: the networks.
        device: torch device.
        backend: ``torch``, or ``openvino`` (CPU, fp32): compiled for each batch size on first use.
        outliers: what its reference scans look like; None where the module does not say.

    Attributes:
        members: networks in evaluation mode on ``device``, their parameters frozen.
    """

    def __init__(
        self,
        manifest: ModuleManifest,
        members: Sequence[Member],
        device: torch.device,
        backend: str = "torch",
        outliers: OutlierReference | None = None,
    ) -> None:
        self.manifest, self.device, self.backend, self.outliers = manifest, device, backend, outliers
        read = manifest.input
        self.recipe = read.form
        self.scaling = InputScaling(read.scale, read.offset, read.size) if isinstance(read, ModuleInput) else AS_IT_IS
        on_gpu = device.type == "cuda"
        layout = speed.channels_last_of(1 + len(self.recipe.shape)) if on_gpu else torch.contiguous_format
        self.members: list[Any] = [m.to(device, memory_format=layout).eval().requires_grad_(False) for m in members]  # type: ignore[call-overload]
        self._compiled = {wanted: CompiledMembers(self.members, features=wanted) for wanted in (False, True)}

    @property
    def hash(self) -> str:
        """SHA-256 of manifest and weights."""
        return self.manifest.hash

    @property
    def is_segmentation(self) -> bool:
        """Whether the networks label every voxel."""
        return self.manifest.network.head == "segmentation"

    def forward(self, images: Tensor, *, features: bool = False) -> NetworkOutput:
        """Raw outputs of the networks: differentiable with respect to the pixels, in fp32, without speed wrappers.

        Args:
            images: (N, channels, ...) of the recipe, on any device; floats for gradients.
            features: also return the encoders' features.

        Raises:
            UsageError: images of another shape, or a segmentation, whose volumes are counted.
        """
        self._check(images, exact=False)
        if self.is_segmentation:
            raise UsageError(f"{self.manifest.name} segments; its outputs are masks, not means to differentiate")
        scaled = self.scaling.apply(images.to(self.device))
        if not features:
            raw = self._evaluate(scaled)
            return NetworkOutput(raw[..., 0], raw[..., 1], None)
        pooled = [member.encode(scaled) for member in self.members]
        raw = torch.stack([member.predict(p) for member, p in zip(self.members, pooled, strict=True)])
        return NetworkOutput(raw[..., 0], raw[..., 1], torch.stack(pooled))

    def _evaluate(self, scaled: Tensor) -> Tensor:
        """(N, channels, rows, cols) of the input size -> (K, N, T, 2)."""
        return torch.stack([member(scaled).float() for member in self.members])

    def _evaluate_with_features(self, scaled: Tensor) -> Tensor:
        """(N, channels, rows, cols) of the input size -> (K, N, 2T + F)."""
        return torch.stack([member.with_features(scaled).float() for member in self.members])

    def _check(self, images: Tensor, *, exact: bool) -> None:
        """Refuse images of another shape than the recipe's and, if ``exact``, of another type."""
        shape, dtype = tuple(images.shape), f"torch.{self.recipe.dtype}"
        if shape[1:] != self.recipe.shape or (exact and str(images.dtype) != dtype):
            wanted = f"(N, {', '.join(map(str, self.recipe.shape))})"
            raise UsageError(f"images are {images.dtype} {shape}, expected {dtype if exact else 'any type'} {wanted}")

    def predict_standardized(self, images: Tensor, precision: Precision = "fp32") -> NDArray[np.float32]:
        """Raw outputs of every member.

        On a CPU in fp32, for one batch size and number of threads, a scan's result is bit-identical whatever its place
        in the batch and the other scans; across batch sizes it agrees to 1e-4.

        Args:
            images: (N, channels, ...) of the recipe, on any device.
            precision: arithmetic of the networks; their heads always compute in fp32.

        Returns:
            (K, N, T, 2) float32: mean and log-variance in standardized units.

        Raises:
            UsageError: images of another type or shape, or an unknown precision.
        """
        return np.asarray(self.run(images, precision, features=False).heads.cpu().numpy())

    def predict_with_features(
        self, images: Tensor, precision: Precision = "fp32"
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Raw outputs of every member and its features, with the speed wrappers that :meth:`launch` has.

        Args:
            images: (N, channels, ...) of the recipe, on any device.
            precision: arithmetic of the networks.

        Returns:
            (K, N, T, 2) and (K, N, F) float32.

        Raises:
            UsageError: images of another type or shape, or an unknown precision.
        """
        run = self.run(images, precision, features=True)
        assert run.features is not None
        return np.asarray(run.heads.cpu().numpy()), np.asarray(run.features.cpu().numpy())

    def launch(self, images: Tensor, precision: Precision = "fp32") -> RawOutput:
        """As :meth:`predict_standardized`, without waiting for a GPU: the result stays on the device.

        Args:
            images: (N, channels, ...) of the recipe, on any device; pinned memory must not change before the
                result is read.
            precision: arithmetic of the networks.

        Returns:
            Heads and, for a module with an outlier reference, features, on the module's device.

        Raises:
            UsageError: images of another type or shape, or an unknown precision.
        """
        return self.run(images, precision, features=self.outliers is not None)

    def run(self, images: Tensor, precision: Precision = "fp32", *, features: bool = True) -> RawOutput:
        """As :meth:`launch`, with features if they are wanted.

        Args:
            images: (N, channels, ...) of the recipe, on any device.
            precision: arithmetic of the networks.
            features: whether they are wanted; a segmentation gives them in any case.
        """
        if self.is_segmentation:
            return self._segment(images, precision)
        if not features:
            return RawOutput(self._call(images, precision, features=False), None)
        packed = self._call(images, precision, features=True)
        numbers = 2 * len(self.manifest.targets)
        return RawOutput(packed[..., :numbers].reshape(*packed.shape[:2], -1, 2), packed[..., numbers:])

    def _segment(self, images: Tensor, precision: Precision) -> RawOutput:
        """The members one after the other, so that the probabilities of one at a time are held."""
        self._check(images, exact=True)
        read = self.manifest.input
        assert isinstance(read, VolumeInput)
        volumes, features, total = [], [], torch.zeros(())
        with torch.inference_mode(), torch.autocast(self.device.type, DTYPES[precision], enabled=precision != "fp32"):
            batch = images.to(self.device, non_blocking=True)
            for member in self.members:
                found = member.segment(batch)
                volumes.append(found.volumes)
                features.append(found.features)
                total = total.to(self.device) + found.probabilities / len(self.members)
            unit = torch.tensor([read.voxel_ml, 1.0], device=self.device)
            heads = torch.stack(volumes) * unit
            heads[..., 1] += 2.0 * math.log(read.voxel_ml)
        return RawOutput(heads, torch.stack(features), total)

    def _call(self, images: Tensor, precision: Precision, *, features: bool) -> Tensor:
        self._check(images, exact=True)
        if precision not in DTYPES:
            raise UsageError(field="precision", got=precision, expected=", ".join(DTYPES))
        fast = self._fast(precision, features)
        call = speed.on_device(lambda batch: fast(self.scaling.apply(batch)), self.device)
        return speed.without_gradients(call)(images)

    def _fast(self, precision: Precision, features: bool) -> Call:
        """The networks in the speed wrappers for device, backend and precision."""
        if self.backend == "openvino" and precision == "fp32":
            return self._compiled[features]
        call: Call = self._evaluate_with_features if features else self._evaluate
        if precision != "fp32":
            call = speed.mixed_precision(call, self.device, precision)
        if self.device.type == "cuda":
            return speed.channels_last(call)
        small = self.manifest.network.encoder not in WORTH_COMPILING and self.manifest.network.dimension == 2
        if self.device.type == "cpu" and small:
            return speed.one_thread(call)
        return call

    def to_estimates(self, raw: NDArray[np.float32]) -> Mixture:
        """The steps within a module: combine, destandardize, calibrate, convert units.

        Args:
            raw: (K, N, T, 2) of :meth:`predict_standardized`.

        Returns:
            Mean, aleatoric and epistemic variance in natural units, (N, T) float64 each.
        """
        targets, means = self.manifest.targets, raw[..., 0].astype(np.float64)
        if self.manifest.network.head == "class":
            means = expit(means)
            variances = means * (1.0 - means)
        else:
            variances = variance_from_raw(raw[..., 1], self.manifest.network.log_variance)
        mixture = combine_members(means, variances)
        mixture = destandardize(mixture, np.array([t.mean for t in targets]), np.array([t.sd for t in targets]))
        mixture = calibrate(mixture, np.array([t.calibration.factor for t in targets]))
        return convert_units(mixture, np.array([t.divisor for t in targets]))

    def half_width(self, target: int, level: float) -> float | None:
        """Half width of the central interval in total standard deviations.

        Args:
            target: index in the manifest.
            level: in (0, 1).

        Returns:
            None if the target's calibration had too few labels for that level.
        """
        return half_width_of(self.manifest.targets[target].calibration, level)


def _as_kind(name: str, value: Tensor, kind: torch.dtype) -> Tensor:
    """A copy of a stored tensor in the network's type: fp16 and bf16 become fp32; integers are refused as weights."""
    if value.dtype.is_floating_point != kind.is_floating_point:
        raise TypeError(f"{name} is stored as {value.dtype}, expected a type like {kind}")
    return value.to(kind, copy=True)


def _untrained(manifest: ModuleManifest) -> Any:
    """A network as the manifest describes it."""
    network, read, count = manifest.network, manifest.input, len(manifest.targets)
    if isinstance(read, VolumeInput):
        if network.head == "segmentation":
            from ukb_infer.networks.segmentation import build_segmentation

            return build_segmentation(network.encoder, count, read.form.shape, patch=read.patch)
        return build_network(network.encoder, count, shape=read.form.shape)
    return build_network(network.encoder, count, shape=PROJECTION)


def _load_member(folder: Path, member: MemberFile, manifest: ModuleManifest) -> Any:
    """Load one network; draws no random numbers."""
    path = folder / member.file
    with torch.device("meta"):
        network = _untrained(manifest)
    kinds = {k: v.dtype for k, v in network.model.state_dict().items()}
    try:
        # Copies, so that a file replaced later cannot change or crash a loaded network (safetensors maps the file).
        state = {k: _as_kind(k, v, kinds.get(k, v.dtype)) for k, v in load_file(path).items()}
        network.model.load_state_dict(state, strict=True, assign=True)
    except (SafetensorError, RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:240]
        raise ModuleError(
            f"{path}: does not contain the weights of {manifest.network.encoder} with {len(manifest.targets)} targets "
            f"({reason})"
        ) from error
    if not all(bool(torch.isfinite(v).all()) for v in state.values() if v.is_floating_point()):
        raise ModuleError(f"{path}: holds NaN or infinite weights, expected finite ones; copy the module again")
    return network


def _load_outliers(folder: Path, manifest: ModuleManifest, members: Sequence[Member]) -> OutlierReference | None:
    if manifest.outputs.outliers is None:
        return None
    width = sum(member.width for member in members)
    reference = read_outliers(folder / manifest.outputs.outliers.file, width, len(manifest.targets))
    if reference.calibration is None:
        return reference
    factors = np.array([target.calibration.factor for target in manifest.targets])
    spread = np.array([target.sd / target.divisor for target in manifest.targets]) ** 2
    rules = rescale_rules(reference.rules, manifest.target_names, reference.calibration * spread, factors * spread)
    return replace(reference, rules=rules, calibration=factors.astype(np.float32))


def load_module(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    *,
    verify: bool = True,
    backend: str = "torch",
    precision: Precision = "fp32",
    outliers: bool = True,
) -> InferenceModule:
    """Load a module.

    Args:
        name_or_path: folder of a module, or the name of one in ``UKB_INFER_MODULES`` or shipped with the package.
        device: torch device.
        verify: compare every weight file with its SHA-256 first.
        backend: ``torch``, ``openvino`` or ``auto`` (OpenVINO where it is installed and faster).
        precision: the module will be used with; OpenVINO has fp32 only.
        outliers: load its reference of ordinary scans, too; False to make another one.

    Raises:
        ModuleError: not found, damaged, or not what its manifest says.
    """
    folder = find_module(name_or_path)
    manifest = read_manifest(folder)
    for member in manifest.files if verify else ():
        problem = check_member_file(folder, member)
        if problem:
            raise ModuleError(problem)
    try:
        members = [_load_member(folder, member, manifest) for member in manifest.members]
    except ModuleError:
        raise
    except UkbInferError as error:
        raise ModuleError(f"{folder / MANIFEST_NAME}: {error}") from error
    device = torch.device(device)
    if manifest.network.dimension == 2:
        backend = choose_backend(backend, manifest.network.encoder, device, precision)
    elif backend == "openvino":
        raise UsageError(f"openvino runs projections only, {manifest.name} is for volumes; use torch", field="backend")
    else:
        backend = "torch"
    reference = _load_outliers(folder, manifest, members) if outliers else None
    return InferenceModule(manifest, members, device, backend, reference)


def _to_store(value: Tensor, half: bool) -> Tensor:
    """A tensor as it is stored; one that fp16 cannot hold (above 65,504) stays fp32."""
    value = value.detach().cpu().contiguous()
    if not half or value.dtype != torch.float32:
        return value
    small = value.half()
    return small if bool(torch.isfinite(small).all()) else value


def _check_destination(folder: Path, *, overwrite: bool) -> None:
    """Refuse what must not be replaced.

    Raises:
        UsageError: a file, a folder in use, or (even with ``overwrite``) a folder that is not a module.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file, expected the folder of a new module; choose another name")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise UsageError(f"{folder} exists and is not empty; choose another folder or pass `overwrite`")
    if not (folder / MANIFEST_NAME).is_file():
        raise UsageError(
            f"{folder} is not empty and not a module (no {MANIFEST_NAME}), so it is kept; choose another folder"
        )


def _check_networks(manifest: ModuleManifest, networks: Sequence[Member]) -> None:
    if not networks:
        raise ModuleError(f"{manifest.name}: no members, expected at least one network")
    for k, network in enumerate(networks):
        if network.n_targets != len(manifest.targets):
            raise ModuleError(
                f"{manifest.name}: member {k + 1} predicts {network.n_targets} targets, the manifest names "
                f"{len(manifest.targets)}"
            )
        for name, value in network.model.state_dict().items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise ModuleError(
                    f"{manifest.name}: {name} of member {k + 1} has NaN or infinite values, expected finite weights"
                )


def _write_outliers(
    folder: Path, manifest: ModuleManifest, reference: OutlierReference, fitted_on: str
) -> ModuleOutputs:
    """Write a reference; the file's name says its content, so that a manifest never meets another's file."""
    data = reference.to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    name = f"outliers-{digest[:8]}.safetensors"
    atomic_write_bytes(folder / name, data)
    return replace(manifest.outputs, outliers=OutlierFile(name, digest, fitted_on))


def _write_files(
    new: Path,
    manifest: ModuleManifest,
    networks: Sequence[Member],
    half: bool,
    extra: Mapping[str, str],
    outliers: tuple[OutlierReference, str] | None,
) -> ModuleManifest:
    """Write all files of a module into an empty folder and read the manifest back."""
    files = []
    for k, network in enumerate(networks):
        path = new / f"member{k + 1}.safetensors"
        state = {name: _to_store(value, half) for name, value in network.model.state_dict().items()}
        atomic_write_bytes(path, to_bytes(state))
        files.append(MemberFile(path.name, sha256_file(path)))
    manifest = replace(
        manifest, network=replace(manifest.network, members=tuple(files)), schema_version=SCHEMA_VERSION,
        outputs=_write_outliers(new, manifest, *outliers) if outliers else replace(manifest.outputs, outliers=None),
    )  # fmt: skip
    try:
        text = manifest.to_json()
    except ValueError as error:
        raise ModuleError(f"{manifest.name}: the manifest has a number that is not finite ({error})") from error
    parse_manifest(text, f"{manifest.name}: {MANIFEST_NAME}")
    atomic_write_text(new / MANIFEST_NAME, text)
    for name, content in extra.items():
        atomic_write_text(new / name, content)
    return manifest


def _exchange(new: Path, folder: Path, aside: Path) -> None:
    """Replace ``folder`` by ``new``; if that fails, the old folder is restored."""
    if folder.exists():
        folder.replace(aside)
    try:
        new.replace(folder)
    except OSError:
        if aside.exists():
            aside.replace(folder)
        raise


def update_manifest(folder: Path, manifest: ModuleManifest) -> None:
    """Replace the manifest of a module atomically, and let its card follow; weights and schema version stay.

    Args:
        folder: of the module.
        manifest: with the same members as the one on disk.

    Raises:
        ModuleError: the members differ, or the file cannot be written.
    """
    before = read_manifest(folder)
    if before.files != manifest.files:
        raise ModuleError(f"{folder}: the new manifest has other members than the module; nothing was changed")
    _update_card(folder, before, manifest)  # first: repeated after a failure, both are brought up to date
    try:
        _write_manifest(folder, manifest)
    except (OSError, ValueError) as error:
        raise ModuleError(f"{folder / MANIFEST_NAME}: cannot be written ({error}); the old one is kept") from error


def _write_manifest(folder: Path, manifest: ModuleManifest) -> None:
    text = manifest.to_json()
    parse_manifest(text, f"{manifest.name}: {MANIFEST_NAME}")
    atomic_write_text(folder / MANIFEST_NAME, text)


def copy_module(source: Path, folder: Path, manifest: ModuleManifest, *, note: str, overwrite: bool = False) -> None:
    """Write a module with the weights of another, atomically.

    Args:
        source: folder of the other.
        folder: of the new one; its parent is created.
        manifest: of the new one, with the same files.
        note: last line of its README.
        overwrite: replace an existing module.

    Raises:
        UsageError: the folder exists.
        ModuleError: it cannot be written, or the source is damaged.
    """
    folder = folder.absolute()
    for member in manifest.files:
        if problem := check_member_file(source, member):
            raise ModuleError(problem)
    try:
        _check_destination(folder, overwrite=overwrite)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
            new = Path(work) / "module"
            new.mkdir()
            for name in (*(member.file for member in manifest.files), README_NAME, CARD_NAME, VISITS_NAME):
                if (source / name).is_file():
                    shutil.copyfile(source / name, new / name)
            readme = new / README_NAME
            before = readme.read_text(encoding="utf-8") if readme.is_file() else f"# {folder.name}\n"
            atomic_write_text(readme, f"{before.rstrip()}\n\n{note}\n")
            _write_manifest(new, manifest)
            _update_card(new, read_manifest(source), manifest)
            _exchange(new, folder, Path(work) / "replaced")
    except OSError as error:
        raise ModuleError(
            f"{folder}: the module cannot be written ({error.strerror or error}); free space or restore access"
        ) from error


def add_outliers(folder: Path, reference: OutlierReference, fitted_on: str) -> ModuleManifest:
    """Give a module an outlier reference, in place of an earlier one; the manifest is written last.

    Args:
        folder: of the module.
        reference: of its networks' features.
        fitted_on: what the reference scans were, for the manifest.

    Returns:
        The manifest as written, in the newest version.

    Raises:
        ModuleError: the module cannot be read or written.
    """
    manifest = read_manifest(folder)
    try:
        outputs = _write_outliers(folder, manifest, reference, fitted_on)
        changed = replace(manifest, outputs=outputs, schema_version=SCHEMA_VERSION)
        _update_card(folder, manifest, changed)
        _write_manifest(folder, changed)
        if (before := manifest.outputs.outliers) is not None and before != outputs.outliers:
            (folder / before.file).unlink(missing_ok=True)
    except OSError as error:
        raise ModuleError(
            f"{folder}: cannot be written ({error.strerror or error}); free space or restore access"
        ) from error
    return changed


def _update_card(folder: Path, before: ModuleManifest, after: ModuleManifest) -> None:
    try:
        update_card(folder, before, after)
    except UnicodeDecodeError as error:
        raise ModuleError(f"{folder / CARD_NAME}: is no UTF-8 text; convert it, or move it away") from error
    except OSError as error:
        raise ModuleError(
            f"{folder / CARD_NAME}: cannot be read or written ({error.strerror or error}); free space or restore "
            "access, then run the same command again"
        ) from error


def save_module(
    folder: Path,
    manifest: ModuleManifest,
    networks: Sequence[Member],
    *,
    half: bool = False,
    overwrite: bool = False,
    extra: Mapping[str, str] | None = None,
    outliers: tuple[OutlierReference, str] | None = None,
) -> ModuleManifest:
    """Write a complete module atomically.

    Args:
        folder: where; its parent is created.
        manifest: without the members' files, which are filled in; written in the newest version.
        networks: the members.
        half: store weights as fp16 (they are used as fp32).
        overwrite: replace an existing module.
        extra: further text files, name to content (a README).
        outliers: reference of ordinary scans, and which those are.

    Returns:
        The manifest as written.

    Raises:
        UsageError: the folder exists.
        ModuleError: it cannot be written, or manifest and networks do not fit.
    """
    folder = folder.absolute()
    try:
        _check_destination(folder, overwrite=overwrite)
        _check_networks(manifest, networks)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
            new = Path(work) / "module"
            new.mkdir()
            manifest = _write_files(new, manifest, networks, half, extra or {}, outliers)
            _exchange(new, folder, Path(work) / "replaced")
    except OSError as error:
        raise ModuleError(
            f"{folder}: the module cannot be written ({error.strerror or error}); free space or restore access"
        ) from error
    return manifest
