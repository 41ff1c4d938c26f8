"""``module.json``: what a module is, strictly read and written (floor 3).

The format is described in ``docs/modules.md``. Every complaint names the file, the key, what was found and what was
expected; a manifest of the wrong shape is an error, never a crash.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeGuard, TypeVar

from ukb_infer.errors import ModuleError
from ukb_infer.geometry import RECIPE
from ukb_infer.storage import sha256_file
from ukb_infer.targets import suggest

SCHEMA_VERSION = 1
MANIFEST_NAME = "module.json"
#: A manifest larger than this is refused unread.
MAX_MANIFEST_BYTES = 4 << 20
_SAFE_FILE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
#: Larger numbers than this, and positive ones smaller than its inverse, have no finite or no positive square.
MAX_NUMBER = 1e100

T = TypeVar("T")


@dataclass(frozen=True)
class Calibration:
    """Calibration of one target.

    Attributes:
        method: ``none``, ``variance-factor`` or ``conformal``.
        factor: multiplies the variance (1 for ``none``).
        half_widths: for ``conformal``: level -> half width in calibrated standard deviations.
        fitted_on: what it was fitted on, for people.
    """

    method: Literal["none", "variance-factor", "conformal"] = "none"
    factor: float = 1.0
    half_widths: tuple[tuple[float, float], ...] = ()
    fitted_on: str = ""


@dataclass(frozen=True)
class ModuleTarget:
    """One output of a module.

    Attributes:
        name: column name, from the registry where it has the target.
        unit: natural unit of the estimate.
        field: UK Biobank field or "".
        kind: ``continuous`` or ``binary``.
        lower: physical lower limit or None; ``upper`` likewise.
        mean: of the standardization, label units; ``sd`` likewise.
        divisor: label units per natural unit.
        calibration: of the variance.
    """

    name: str
    unit: str
    field: str
    kind: Literal["continuous", "binary"]
    lower: float | None
    upper: float | None
    mean: float
    sd: float
    divisor: float
    calibration: Calibration


@dataclass(frozen=True)
class MemberFile:
    """Weights of one member: file name inside the module's folder and its SHA-256."""

    file: str
    sha256: str


@dataclass(frozen=True)
class ModuleManifest:
    """Everything ``module.json`` says.

    Attributes:
        name: of the module; ``version`` of its release.
        intended_use: one sentence; ``provenance``: how it was made; ``warning``: shown wherever it could be mistaken.
        licence: of the weights.
        recipe: projection recipe the networks expect.
        backbone: key of the backbone registry.
        input_scale, input_offset, input_size: input scaling.
        targets: outputs in the order of the head.
        members: weight files.
    """

    name: str
    version: str
    intended_use: str
    provenance: str
    warning: str
    licence: str
    recipe: str
    backbone: str
    input_scale: float
    input_offset: float
    input_size: tuple[int, int] | None
    targets: tuple[ModuleTarget, ...]
    members: tuple[MemberFile, ...]

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names in the order of the head."""
        return tuple(t.name for t in self.targets)

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides the estimates: manifest and, through it, every weight file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """The manifest as text."""
        plain = {"schema_version": SCHEMA_VERSION} | asdict(self)
        return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


_MANIFEST_KEYS, _TARGET_KEYS, _MEMBER_KEYS, _CALIBRATION_KEYS = (
    tuple(f.name for f in fields(c)) for c in (ModuleManifest, ModuleTarget, MemberFile, Calibration)
)


class _Reader:
    """Typed access to one JSON object with errors that name the place."""

    def __init__(self, value: Any, where: str, file: str) -> None:
        if not isinstance(value, dict):
            raise ModuleError(f"{file}: {where or 'the top level'} is {_kind(value)}, expected an object")
        self.value, self.where, self.file = value, where, file

    def fail(self, key: str, got: Any, expected: str) -> ModuleError:
        """The complaint about one key."""
        place = f"{self.where}.{key}" if self.where else key
        return ModuleError(f"{self.file}: {place} is {_shown(got)}, expected {expected}")

    def only(self, keys: Iterable[str]) -> None:
        """Refuse keys the format does not have: a misspelled limit would otherwise be no limit."""
        known = tuple(keys)
        for key in self.value:
            if key not in known:
                raise self.fail(key, self.value[key], f"no such key{suggest(key, known)}")

    def text(self, key: str, *, empty: bool = False, prose: bool = False, default: str | None = None) -> str:
        got = self.value.get(key, default)
        if not isinstance(got, str) or (not got and not empty) or not _is_plain(got, lines=prose):
            raise self.fail(key, got, "text" if prose else "one line of text")
        return got

    def choice(self, key: str, choices: tuple[str, ...]) -> Any:
        got = self.value.get(key)
        if got not in choices:
            raise self.fail(key, got, " or ".join(choices))
        return got

    def number(self, key: str, *, positive: bool = False, default: float | None = None) -> float:
        got = self.value.get(key, default)
        if not _is_number(got) or (positive and got < 1.0 / MAX_NUMBER):
            raise self.fail(key, got, "a number above 0" if positive else "a number")
        return float(got)

    def optional_number(self, key: str) -> float | None:
        return None if self.value.get(key) is None else self.number(key)

    def items(self, key: str, make: Callable[[_Reader], T], *, at_least: int = 1) -> tuple[T, ...]:
        got = self.value.get(key)
        if not isinstance(got, list) or len(got) < at_least or len(got) > 10_000:
            raise self.fail(key, got, f"a list of at least {at_least}")
        place = f"{self.where}.{key}" if self.where else key
        return tuple(make(_Reader(v, f"{place}[{k}]", self.file)) for k, v in enumerate(got))


def _is_number(value: Any) -> TypeGuard[float]:
    """An int or float, finite and of sane size (a JSON integer may have thousands of digits)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -MAX_NUMBER <= value <= MAX_NUMBER


def _is_plain(text: str, *, lines: bool) -> bool:
    """Whether a text can be written to a table or a terminal: no lone surrogates, no control characters."""
    return all((lines and c == "\n") or unicodedata.category(c) not in ("Cc", "Cs") for c in text)


def _shown(value: Any) -> str:
    """A value for a message, short and printable."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return ascii(value[:60])
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < MAX_NUMBER):
        return repr(value)
    return "a huge number" if isinstance(value, int) else _kind(value)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", type(None): "nothing", bool: "true or false"}
    return names.get(type(value), "a number")


def _calibration(reader: _Reader) -> Calibration:
    reader.only(_CALIBRATION_KEYS)
    method = reader.choice("method", ("none", "variance-factor", "conformal"))
    pairs = reader.value.get("half_widths") or []
    fine = isinstance(pairs, list) and all(
        isinstance(p, list) and len(p) == 2 and all(_is_number(v) for v in p) for p in pairs
    )
    if not fine or (method == "conformal" and not pairs):
        raise reader.fail("half_widths", pairs, "a list of [level, half width]")
    widths = tuple((float(a), float(b)) for a, b in pairs)
    rising = all(a < c and b <= d for (a, b), (c, d) in pairwise(widths))
    if any(not 0 < a < 1 or b <= 0 for a, b in widths) or not rising:
        raise reader.fail("half_widths", pairs, "levels rising within (0, 1) and half widths above 0 that do not fall")
    return Calibration(
        method,
        reader.number("factor", positive=True, default=1.0),
        widths,
        reader.text("fitted_on", empty=True, prose=True, default=""),
    )


def _target(reader: _Reader) -> ModuleTarget:
    name = reader.text("name")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", name):
        raise reader.fail("name", name, "letters, digits and _ only, a letter first")
    reader.only(_TARGET_KEYS)
    lower, upper = reader.optional_number("lower"), reader.optional_number("upper")
    field = reader.text("field", empty=True)
    if field and not (field.isascii() and field.isdigit()):
        raise reader.fail("field", field, "a UK Biobank field number, or nothing between the quotes")
    if lower is not None and upper is not None and lower >= upper:
        raise reader.fail("upper", upper, f"more than the lower limit {lower:g}")
    return ModuleTarget(
        name=name,
        unit=reader.text("unit", empty=True),
        field=field,
        kind=reader.choice("kind", ("continuous", "binary")),
        lower=lower,
        upper=upper,
        mean=reader.number("mean"),
        sd=reader.number("sd", positive=True),
        divisor=reader.number("divisor", positive=True, default=1.0),
        calibration=_calibration(_Reader(reader.value.get("calibration"), f"{reader.where}.calibration", reader.file)),
    )


def _member(reader: _Reader) -> MemberFile:
    file, digest = reader.text("file"), reader.text("sha256")
    reader.only(_MEMBER_KEYS)
    if not _SAFE_FILE.fullmatch(file):
        raise reader.fail("file", file, "a plain name ending in .safetensors")
    if not _SHA256.fullmatch(digest):
        raise reader.fail("sha256", digest, "64 hexadecimal digits")
    return MemberFile(file, digest)


def _input_size(reader: _Reader) -> tuple[int, int] | None:
    got = reader.value.get("input_size")
    if got is None:
        return None
    if not (
        isinstance(got, list) and len(got) == 2 and all(type(n) is int and 32 <= n <= 256 and 256 % n == 0 for n in got)
    ):
        raise reader.fail("input_size", got, "null or [rows, cols] that divide 256")
    return got[0], got[1]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [k for k, _ in pairs]
        twice = next(k for k in keys if keys.count(k) > 1)
        raise ValueError(f"the key {twice[:60]!a} occurs twice in one object")
    return value


def parse_manifest(text: str, file: str = MANIFEST_NAME) -> ModuleManifest:
    """Parse and check a manifest's text.

    Args:
        text: JSON.
        file: name for error messages.

    Raises:
        ModuleError: not JSON, of the wrong shape, of another schema version or recipe.
    """
    try:
        reader = _Reader(json.loads(text, object_pairs_hook=_once), "", file)
    except (ValueError, RecursionError) as error:
        raise ModuleError(f"{file}: not valid JSON ({error}); restore the module from its source") from error
    version = reader.value.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise reader.fail("schema_version", version, f"{SCHEMA_VERSION}; a newer module needs a newer ukb-infer")
    reader.only(("schema_version", *_MANIFEST_KEYS))
    manifest = ModuleManifest(
        name=reader.text("name"),
        version=reader.text("version"),
        intended_use=reader.text("intended_use", empty=True, prose=True),
        provenance=reader.text("provenance", empty=True, prose=True),
        warning=reader.text("warning", empty=True, prose=True),
        licence=reader.text("licence", empty=True, prose=True),
        recipe=reader.choice("recipe", (RECIPE,)),
        backbone=reader.text("backbone"),
        input_scale=reader.number("input_scale", positive=True),
        input_offset=reader.number("input_offset"),
        input_size=_input_size(reader),
        targets=reader.items("targets", _target),
        members=reader.items("members", _member),
    )
    for what, names in (("targets", manifest.target_names), ("members", tuple(m.file for m in manifest.members))):
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise ModuleError(f"{file}: {what} holds {', '.join(sorted(twice))} twice, expected each once")
    return manifest


def read_manifest(folder: Path) -> ModuleManifest:
    """Read ``module.json`` of a module's folder.

    Raises:
        ModuleError: missing, too large or not a valid manifest.
    """
    path = folder / MANIFEST_NAME
    try:
        if not path.is_file():
            raise ModuleError(
                f"{folder} holds no {MANIFEST_NAME}: it is no module. A published MIMIR folder is converted with "
                "`ukb-infer modules import-mimir FOLDER --out MODULE`"
            )
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ModuleError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_MANIFEST_BYTES}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModuleError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    return parse_manifest(text, str(path))


def check_member_file(folder: Path, member: MemberFile) -> str | None:
    """Problem of one weight file (missing, or another SHA-256), or None."""
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
            "the file is damaged or was exchanged: copy the module again"
        )
    return None


def verify_module(folder: Path) -> list[str]:
    """All problems of a module's folder; empty where it is complete and unchanged."""
    try:
        manifest = read_manifest(folder)
    except ModuleError as error:
        return [str(error)]
    return [problem for member in manifest.members if (problem := check_member_file(folder, member))]
