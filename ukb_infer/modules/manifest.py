"""``module.json``, the manifest of a module, strictly validated.

The format is described in ``docs/modules.md``. Every error names the file, the key, what was found and what was
expected; an invalid manifest never causes a crash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, PlainValidator, Strict, ValidationInfo
from pydantic_core import PydanticCustomError

from ukb_infer.errors import ModuleError
from ukb_infer.imaging.recipe import ImageForm
from ukb_infer.imaging.recipes import RECIPES, get_recipe
from ukb_infer.modules import checks, version1
from ukb_infer.modules.calibration import Calibration
from ukb_infer.modules.checks import Line, LineOrNothing, Number, Positive, Prose, Setting, expected, from_json, wrong
from ukb_infer.modules.visits import VISITS_NAME, MadeBy, read_visits
from ukb_infer.regression.log_variance import LOG_VARIANCES, LogVariance
from ukb_infer.storage import sha256_file
from ukb_infer.text import suggest

SchemaVersion = Literal[1, 2]
SCHEMA_VERSION: SchemaVersion = 2
MANIFEST_NAME = "module.json"
#: A manifest larger than this is refused unread.
MAX_MANIFEST_BYTES = 4 << 20
#: Fewest rows and columns of the input.
MIN_SIZE = 32
#: Most targets or members of a module.
MAX_ITEMS = 10_000


@from_json
@dataclass(frozen=True)
class MemberFile:
    """Weights of one member: file name inside the module's folder and its SHA-256."""

    file: Annotated[
        str,
        Strict(),
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$"),
        expected("a plain name ending in .safetensors"),
    ]
    sha256: Annotated[str, Strict(), Field(pattern="^[0-9a-f]{64}$"), expected("64 hexadecimal digits")]


@from_json
@dataclass(frozen=True)
class OutlierFile(MemberFile):
    """What ordinary scans look like to the networks: as :class:`MemberFile`, and which scans those were."""

    fitted_on: Line


def _above_lower(upper: float | None, info: ValidationInfo) -> float | None:
    lower = info.data.get("lower")
    if upper is not None and lower is not None and lower >= upper:
        raise wrong(f"more than the lower limit {lower:g}")
    return upper


@from_json
@dataclass(frozen=True)
class ModuleTarget:
    """One output of a module.

    Attributes:
        name: column name, from the registry if it has the target.
        unit: natural unit of the estimate.
        field: UK Biobank field or "".
        kind: ``continuous`` or ``binary``.
        lower: physical lower limit or None; ``upper`` likewise.
        mean: of the standardization, label units; ``sd`` likewise.
        divisor: label units per natural unit.
        calibration: of the variance.
        label: number of a segmentation's label, whose volume in ml this is; None for other heads.
    """

    name: Annotated[
        str,
        Strict(),
        Field(pattern="^[A-Za-z][A-Za-z0-9_]{0,99}$"),
        expected("a letter, then letters, digits and _ only"),
    ]
    unit: LineOrNothing
    field: Annotated[
        str, Strict(), Field(pattern="^[0-9]*$"), expected("a UK Biobank field number, or an empty string")
    ]
    kind: Annotated[Literal["continuous", "binary"], expected("continuous or binary")]
    lower: Number | None
    upper: Annotated[Number | None, AfterValidator(_above_lower)]
    mean: Number
    sd: Positive
    divisor: Positive
    calibration: Calibration
    label: Annotated[int | None, Strict(), Field(ge=1, le=255), expected("null or a label number from 1")] = None


def _known_recipe(name: str) -> str:
    if name not in RECIPES:
        raise wrong(f"{' or '.join(RECIPES)}{suggest(name, RECIPES)}")
    return name


def _of_recipe(channels: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    recipe = RECIPES.get(info.data.get("recipe", ""))
    if recipe is not None and channels != recipe.channels:
        raise wrong(f"those of {recipe.name}: {', '.join(recipe.channels)}")
    return channels


def _divides(size: tuple[int, int], info: ValidationInfo) -> tuple[int, int]:
    recipe = RECIPES.get(info.data.get("recipe", ""))
    if recipe is not None and any(n < MIN_SIZE or side % n for n, side in zip(size, recipe.shape[1:], strict=True)):
        raise wrong(f"null or [rows, cols] of at least {MIN_SIZE} that divide {recipe.shape[1]} x {recipe.shape[2]}")
    return size


_Pixels = Annotated[int, Strict()]
_Size = Annotated[
    tuple[_Pixels, _Pixels], expected("null or [rows, cols] that divide the recipe's"), AfterValidator(_divides)
]


@from_json
@dataclass(frozen=True, kw_only=True)
class ModuleInput:
    """Projections as the input of the networks.

    Attributes:
        recipe: of the projections, from the registry of recipes.
        channels: of the recipe, in its order.
        scale: ``x = value * scale + offset``; ``offset`` likewise.
        size: (rows, cols) to which blocks of pixels are averaged first; None for the recipe's own.
    """

    recipe: Annotated[Line, AfterValidator(_known_recipe)]
    channels: Annotated[tuple[Line, ...], AfterValidator(_of_recipe)]
    scale: Positive
    offset: Number
    size: _Size | None = None

    dimension: ClassVar[int] = 2

    @property
    def form(self) -> ImageForm:
        """The recipe."""
        return get_recipe(self.recipe)


def _each_once(groups: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    names = [name for group in groups for name in group]
    if len(set(names)) < len(names) or not all(groups):
        raise wrong("a list of channels, each a list of at least 1 modality, every modality once")
    return groups


def _within_size(patch: tuple[int, int, int] | None, info: ValidationInfo) -> tuple[int, int, int] | None:
    size = info.data.get("size")
    if patch is not None and size is not None and any(p > n for p, n in zip(patch, size, strict=True)):
        raise wrong(f"null or [x, y, z] of at most {list(size)}")
    return patch


_Modality = Annotated[str, Strict(), Field(pattern="^[a-z][a-z0-9_]{0,29}$"), expected("a modality like t1 or flair")]
_Voxels = Annotated[int, Strict(), Field(ge=8, le=1024)]
_Box = Annotated[tuple[_Voxels, _Voxels, _Voxels], expected("[x, y, z] of 8 to 1024 voxels")]


@from_json
@dataclass(frozen=True, kw_only=True)
class VolumeInput:
    """Volumes of a head as the input of the networks: one channel per entry of ``modalities``.

    Attributes:
        modalities: of each channel, those of which the first that a case has is read.
        spacing_mm: of the isotropic voxels, along every axis.
        size: (x, y, z) voxels of the box around the head.
        patch: (x, y, z) voxels that a network sees at once, sliding over the box; None for the whole box.
    """

    modalities: Annotated[
        tuple[tuple[_Modality, ...], ...], Field(min_length=1, max_length=64), AfterValidator(_each_once)
    ]
    spacing_mm: Annotated[Positive, Field(ge=0.1, le=20.0), expected("0.1 to 20 mm")]
    size: _Box
    patch: Annotated[_Box | None, AfterValidator(_within_size)] = None

    dimension: ClassVar[int] = 3

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, ml."""
        return self.spacing_mm**3 / 1000.0

    @property
    def form(self) -> ImageForm:
        """Shape, type and channels of the preprocessed volumes."""
        channels = tuple("|".join(group) for group in self.modalities)
        box = " x ".join(map(str, self.size))
        name = f"volumes {'+'.join(channels)}, {box} of {self.spacing_mm:g} mm"
        return ImageForm(name=name, shape=(len(channels), *self.size), dtype="float32", channels=channels)


def _of_its_kind(value: Any) -> ModuleInput | VolumeInput:
    """Volumes have modalities, projections a recipe."""
    if isinstance(value, ModuleInput | VolumeInput):
        return value
    kind = VolumeInput if isinstance(value, dict) and "modalities" in value else ModuleInput
    return checks.adapter(kind).validate_python(value)  # type: ignore[no-any-return]


#: What the head of a network makes of its features.
Head = Literal["mean-variance", "class", "segmentation"]
HEADS: tuple[Head, ...] = get_args(Head)


@from_json
@dataclass(frozen=True, kw_only=True)
class ModuleNetwork:
    """The networks.

    Attributes:
        encoder: key of the registry of backbones.
        log_variance: how the heads' second output becomes a log-variance.
        dimension: of the images.
        head: ``mean-variance``: one linear layer from the pooled features to mean and log-variance of every target;
            ``class``: the same to one logit of every target (the second output is not used); ``segmentation``: a
            decoder to one logit per voxel and label, the background first.
        dtype: of the parameters once loaded; the files may store float16.
        members: weight files.
    """

    encoder: Line
    log_variance: Annotated[LogVariance, expected(" or ".join(LOG_VARIANCES))]
    dimension: Annotated[Literal[2, 3], expected("2 or 3")] = 2
    head: Annotated[Head, expected(" or ".join(HEADS))] = "mean-variance"
    dtype: Annotated[Literal["float32"], expected("float32")] = "float32"
    members: Annotated[tuple[MemberFile, ...], Field(min_length=1, max_length=MAX_ITEMS), checks.each_once("file")] = ()


@from_json
@dataclass(frozen=True)
class ModuleOutputs:
    """Outputs of a module.

    Attributes:
        targets: in the order of the head.
        outliers: reference of ordinary scans; None if the module has none.
    """

    targets: Annotated[tuple[ModuleTarget, ...], Field(min_length=1, max_length=MAX_ITEMS), checks.each_once("name")]
    outliers: OutlierFile | None = None


def _fits_input(network: ModuleNetwork, info: ValidationInfo) -> ModuleNetwork:
    read = info.data.get("input")
    if read is not None and network.dimension != read.dimension:
        raise PydanticCustomError(
            "expected", "{expected}",
            {"key": "dimension", "found": network.dimension, "expected": f"{read.dimension}, that of the input"},
        )  # fmt: skip
    if network.head == "segmentation" and (network.dimension, network.log_variance) != (3, "plain"):
        raise PydanticCustomError(
            "expected", "{expected}",
            {"key": "head", "found": network.head, "expected": "another head, or dimension 3 with log_variance plain"},
        )  # fmt: skip
    return network


def _fits_head(outputs: ModuleOutputs, info: ValidationInfo) -> ModuleOutputs:
    network = info.data.get("network")
    if network is None:
        return outputs
    labels = [target.label for target in outputs.targets]
    wanted = list(range(1, len(labels) + 1)) if network.head == "segmentation" else [None] * len(labels)
    if labels != wanted:
        words = "labels 1, 2, ... in this order" if network.head == "segmentation" else "no labels"
        raise wrong(f"targets with {words}, as the head is {network.head}")
    if network.head == "class" and any(target.kind != "binary" for target in outputs.targets):
        raise wrong("binary targets, as the head is class")
    return outputs


@from_json
@dataclass(frozen=True, kw_only=True)
class ModuleManifest:
    """The content of ``module.json``.

    Attributes:
        name: of the module; ``version`` of its release.
        intended_use: one sentence; ``provenance``: how it was made; ``warning``: shown whenever it is used.
        licence: of the weights.
        input: of the networks.
        network: the networks.
        outputs: the targets.
        training: settings the members were trained with, as :mod:`ukb_infer.training.recipe` writes them; empty if
            unknown. They are not used at inference and not part of the hash.
        schema_version: of the file; a module keeps it when it is calibrated.
    """

    name: Line
    version: Line
    intended_use: Prose
    provenance: Prose
    warning: Prose
    licence: Prose
    input: Annotated[ModuleInput | VolumeInput, PlainValidator(_of_its_kind)]
    network: Annotated[ModuleNetwork, AfterValidator(_fits_input)]
    outputs: Annotated[ModuleOutputs, AfterValidator(_fits_head)]
    training: dict[str, Setting] = field(default_factory=dict, compare=False)
    schema_version: SchemaVersion = SCHEMA_VERSION

    @property
    def targets(self) -> tuple[ModuleTarget, ...]:
        """Targets in the order of the head."""
        return self.outputs.targets

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names in the order of the head."""
        return tuple(t.name for t in self.targets)

    @property
    def members(self) -> tuple[MemberFile, ...]:
        """Weight files."""
        return self.network.members

    @property
    def files(self) -> tuple[MemberFile, ...]:
        """All files beside the manifest."""
        return (*self.members, *([self.outputs.outliers] if self.outputs.outliers is not None else []))

    def with_targets(self, targets: Sequence[ModuleTarget]) -> ModuleManifest:
        """The manifest with other targets, for example calibrated ones."""
        return replace(self, outputs=replace(self.outputs, targets=tuple(targets)))

    @property
    def hash(self) -> str:
        """SHA-256 of everything that affects the estimates: manifest and, through it, every weight file.

        The outlier reference does not, and is left out.
        """
        bare = replace(self, outputs=ModuleOutputs(self.targets))
        plain = {k: v for k, v in bare.to_dict().items() if k not in ("schema_version", "training")}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    @property
    def made_by(self) -> MadeBy:
        """Name and hash."""
        return MadeBy(self.name, self.hash)

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON, in the schema version of the manifest."""
        plain = asdict(self)
        for entry, target in zip(plain["outputs"]["targets"], self.targets, strict=True):
            entry["calibration"] = target.calibration.to_dict()
            if target.label is None:
                del entry["label"]
        if isinstance(self.input, VolumeInput) and self.input.patch is None:
            del plain["input"]["patch"]
        if not self.training:
            del plain["training"]
        if self.outputs.outliers is None:
            del plain["outputs"]["outliers"]
        version = {"schema_version": plain.pop("schema_version")}
        return version | (version1.from_sections(plain) if self.schema_version == 1 else plain)

    def to_json(self) -> str:
        """The manifest as text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def parse_manifest(text: str, file: str = MANIFEST_NAME) -> ModuleManifest:
    """Parse and check a manifest's text.

    Args:
        text: JSON.
        file: name for error messages.

    Raises:
        ModuleError: not JSON, invalid, of an unknown schema version or recipe.
    """
    value = checks.load_json(text, file)
    version = value.get("schema_version")
    if type(version) is not int or version not in (1, SCHEMA_VERSION):
        raise ModuleError(
            f"{file}: schema_version is {checks.shown(version)}, expected 1 or {SCHEMA_VERSION}; a newer module needs "
            "a newer ukb-infer"
        )
    if version == 1:
        if unknown := checks.unknown_key(value, version1.PLACES):
            key, words = unknown
            raise ModuleError(f"{file}: {ascii(key[:60])[1:-1]} is {checks.shown(value[key])}, expected {words}")
        recipe = RECIPES.get(str(value.get("recipe")))
        value = version1.to_sections(value, recipe.channels if recipe is not None else ())
        return checks.read_object(ModuleManifest, value, file, version1.place_of)
    return checks.read_object(ModuleManifest, value, file)


def read_manifest(folder: Path) -> ModuleManifest:
    """Read ``module.json`` of a module's folder.

    Raises:
        ModuleError: missing, too large or not a valid manifest.
    """
    path = folder / MANIFEST_NAME
    try:
        if not path.is_file():
            raise ModuleError(
                f"{folder} is not a module: it has no {MANIFEST_NAME}; convert a published MIMIR folder with "
                "`ukb-infer modules import-mimir FOLDER --out MODULE`"
            )
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ModuleError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_MANIFEST_BYTES}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModuleError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    return parse_manifest(text, str(path))


def check_member_file(folder: Path, member: MemberFile) -> str | None:
    """Problem of one file beside the manifest (missing, or another SHA-256), or None.

    Args:
        folder: of the module.
        member: its entry in the manifest.
    """
    path = folder / member.file
    try:
        if not path.is_file():
            return f"{path}: missing; copy the whole module again"
        found = sha256_file(path)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror}); restore access or copy the module again"
    if found != member.sha256:
        return (
            f"{path}: SHA-256 is {found[:12]}…, the manifest says {member.sha256[:12]}…; "
            "the file is damaged or was replaced: copy the module again"
        )
    return None


def verify_module(folder: Path) -> list[str]:
    """All problems of a module's folder; empty if it is complete and unchanged."""
    try:
        manifest = read_manifest(folder)
    except ModuleError as error:
        return [str(error)]
    problems = [problem for member in manifest.files if (problem := check_member_file(folder, member))]
    try:
        if (folder / VISITS_NAME).exists():
            read_visits(folder / VISITS_NAME)
    except ModuleError as error:
        problems.append(str(error))
    return problems
