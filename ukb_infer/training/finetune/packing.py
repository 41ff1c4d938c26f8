"""The labelled cases of a task, drawn and packed into memory maps."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import RunError, ScanError, UsageError
from ukb_infer.execution import Failure, run_in_workers, usable_cores
from ukb_infer.imaging.datasets import Case, read_cases
from ukb_infer.labels import read_labels
from ukb_infer.labels.ids import plain_scan
from ukb_infer.modules.manifest import ModuleInput, VolumeInput
from ukb_infer.modules.volumes import read_session
from ukb_infer.reasons import Reason
from ukb_infer.storage import atomic_path, atomic_write_text
from ukb_infer.training.dataset import LabelledImages
from ukb_infer.training.finetune.config import FinetuneRequest
from ukb_infer.training.packing import line_up, pack
from ukb_infer.training.preparing import Say

if TYPE_CHECKING:
    from ukb_infer.imaging.volumes.preprocess import Grid
    from ukb_infer.imaging.volumes.read import Volume

#: Rises when cases are read in another way, so that packed ones of before are not used.
PACKING = 2
VOLUMES_NAME, MASKS_NAME, INDEX_NAME = "volumes.npy", "masks.npy", "volumes.json"
Progress = Callable[[int, int, int], None]
#: Reading one case may take so long, s; and all of them, before workers are started.
_TIME_LIMIT_S, _ALONE_S = 600.0, 6.0


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Cases to learn from.

    Attributes:
        data: images and masks (memory maps), labels and participants.
        read: what modules made of them read.
        images_path: the mapped file; ``masks_path``: likewise, None without masks.
    """

    data: LabelledImages
    read: ModuleInput | VolumeInput
    images_path: Path
    masks_path: Path | None


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The cases that were drawn, before anything is read.

    Attributes:
        names: of the cases.
        labels: (N, T) natural units; of a segmentation NaN until the masks are read.
        participants: (N,).
        cases: with the paths; empty for projections.
    """

    names: tuple[str, ...]
    labels: NDArray[np.float64]
    participants: NDArray[np.str_]
    cases: tuple[Case, ...] = ()


def draw_cases(request: FinetuneRequest, say: Say) -> Drawn:
    """Find the labelled cases and draw the shots.

    Args:
        request: what to adapt.
        say: receives messages.

    Raises:
        UsageError: no labelled case, fewer than the shots or folds, or labels that are not 0 and 1 for a class.
        RunError: no projections, or none with a label.
    """
    found = _draw_volumes(request, say) if request.dimension == 3 else _draw_projections(request, say)
    if request.output == "class":
        _check_classes(found.labels, request)
    rows = draw_shots(
        found.labels[:, 0], found.participants, request.shots, request.seed, by_class=request.output == "class"
    )
    chosen = tuple(found.cases[k] for k in rows) if found.cases else ()
    drawn = Drawn(
        names=tuple(found.names[k] for k in rows), labels=found.labels[rows],
        participants=found.participants[rows], cases=chosen,
    )  # fmt: skip
    people = np.unique(drawn.participants).size
    if people < request.folds:
        expected = f"2 to the number of participants ({people})"
        raise UsageError(field="folds", got=request.folds, expected=expected)
    counts = f"{len(rows)} of {len(found.names)} labelled cases, {people} participants"
    say(f"{request.task}: {counts}{_shares(request, drawn)}")
    return drawn


def _shares(request: FinetuneRequest, drawn: Drawn) -> str:
    if request.output != "class":
        return ""
    positive = (drawn.labels == 1).sum(axis=0)
    return "; " + ", ".join(
        f"{t.name}: {n} with, {len(drawn.names) - n} without" for t, n in zip(request.targets, positive, strict=True)
    )


def _draw_volumes(request: FinetuneRequest, say: Say) -> Drawn:
    column = "" if request.output == "segmentation" else request.targets[0].name
    if len(request.targets) > 1 and column:
        raise UsageError(
            "volumes are adapted to one target at a time, or to the labels of a segmentation", field="task"
        )
    every = read_cases(request.data, request.inputs, labels=request.labels, column=column)
    left_out: Counter[str] = Counter()
    cases = []
    for case in every:
        missing = [g for g in request.inputs if not any(name in case.images for name in g)]
        if missing:
            left_out[f"without {' or '.join(missing[0])}"] += 1
        elif _label_of(case, request) is None:
            left_out["without label"] += 1
        else:
            cases.append(case)
    for why, count in left_out.items():
        say(f"{count} cases are left out: {why}")
    if not cases:
        kind = "seg.nii.gz" if not column else f"label.txt, or a column {column} in participants.tsv or `labels`"
        raise UsageError(field="data", got=f"{request.data} without a usable labelled case", expected=kind)
    values = [case.value if column and case.value is not None else np.nan for case in cases]
    labels = np.repeat(np.array(values, np.float64)[:, None], len(request.targets), axis=1)
    names = tuple("_".join(part for part in (case.participant, case.session) if part) for case in cases)
    return Drawn(names=names, labels=labels, participants=np.array([c.participant for c in cases]), cases=tuple(cases))


def _label_of(case: Case, request: FinetuneRequest) -> object:
    if request.output == "segmentation":
        return case.label if case.label is not None and ".nii" in case.label.name else None
    return case.value


def _draw_projections(request: FinetuneRequest, say: Say) -> Drawn:
    assert request.labels is not None
    names = tuple(spec.name for spec in request.targets)
    labels = read_labels(request.labels, names, definitions={spec.name: spec for spec in request.targets})
    keys, values = line_up(request.data, labels, say)
    rows = np.flatnonzero(np.isfinite(values).any(axis=1))
    people = np.array([keys[k].eid or keys[k].scan for k in rows])
    return Drawn(names=tuple(keys[k].scan for k in rows), labels=values[rows], participants=people)


def _check_classes(labels: NDArray[np.float64], request: FinetuneRequest) -> None:
    for spec, values in zip(request.targets, labels.T, strict=True):
        present = values[np.isfinite(values)]
        if set(np.unique(present)) != {0.0, 1.0}:
            shown = ", ".join(f"{v:g}" for v in np.unique(present)[:5])
            raise UsageError(field="labels", got=f"{spec.name}: {shown}", expected="0 and 1, both of them")


def draw_shots(
    labels: NDArray[np.float64], participants: NDArray[np.str_], shots: int, seed: int, *, by_class: bool
) -> NDArray[np.int64]:
    """Rows of some participants; fewer shots are always a part of more.

    Args:
        labels: (N,) of the first target, NaN where only others have one.
        participants: (N,).
        shots: participants; 0 for all.
        seed: of the draw.
        by_class: keep the classes' shares, with at least one participant of each.

    Raises:
        UsageError: there are fewer participants, or one shot of several classes.
    """
    names, first = np.unique(participants, return_index=True)
    if not shots:
        return np.arange(len(participants))
    if shots > names.size:
        raise UsageError(field="shots", got=shots, expected=f"at most {names.size}, the labelled participants, or all")
    order = np.random.default_rng([seed, 5]).permutation(names.size)
    if by_class:
        if shots < 2:
            raise UsageError(field="shots", got=shots, expected="2 or more, as both classes are needed")
        classes, place = np.nan_to_num(labels[first][order], nan=-1.0), np.empty(names.size)  # NaN: of another target
        for value in np.unique(classes):
            members = np.flatnonzero(classes == value)
            place[members] = (np.arange(members.size) + 0.5) / members.size
            place[members[0]] = 0.0  # the fewest shots have both classes
        order = order[np.argsort(place, kind="stable")]
    return np.flatnonzero(np.isin(participants, names[order[:shots]]))


# -- packing -----------------------------------------------------------------------------------------------------------


def pack_cases(
    drawn: Drawn, request: FinetuneRequest, read: VolumeInput | None, say: Say, progress: Progress = lambda *_: None
) -> Packed:
    """Read the drawn cases into the work folder, or map what is there of the same files.

    Args:
        drawn: the cases.
        request: what to adapt.
        read: how volumes are read; None for projections.
        say: receives messages.
        progress: told the finished, all and unusable cases.

    Raises:
        UsageError: no usable case of one of two classes.
        RunError: no usable case, or the work folder cannot be written.
    """
    if read is None:
        return _pack_projections(drawn, request, say)
    work = request.work_folder
    stamp = stamp_of(drawn, request, read)
    kept = _kept(work, stamp)
    if kept is None:
        kept = _write(drawn, request, read, work, say, progress)
        atomic_write_text(work / INDEX_NAME, json.dumps({"stamp": stamp, **kept}) + "\n")
    rows = np.array(kept["rows"], np.int64)
    labels = np.array(kept["volumes_ml"], np.float64) if request.output == "segmentation" else drawn.labels[rows]
    if request.output == "class":
        _check_classes(labels, request)  # cases that cannot be read may have been all of one class
    masks_path = work / MASKS_NAME if request.output == "segmentation" else None
    data = LabelledImages(
        _mapped(work / VOLUMES_NAME, len(rows)), labels, drawn.participants[rows],
        tuple(spec.name for spec in request.targets), None if masks_path is None else _mapped(masks_path, len(rows)),
    )  # fmt: skip
    return Packed(data=data, read=read, images_path=work / VOLUMES_NAME, masks_path=masks_path)


def _pack_projections(drawn: Drawn, request: FinetuneRequest, say: Say) -> Packed:
    assert request.labels is not None
    names = tuple(spec.name for spec in request.targets)
    labels = read_labels(request.labels, names, definitions={spec.name: spec for spec in request.targets})
    only = {plain_scan(name): values for name, values in zip(drawn.names, drawn.labels, strict=True)}
    packed = pack(request.data, replace(labels, by_scan=only, by_visit={}), request.work_folder, say)
    read = ModuleInput(recipe=packed.recipe.name, channels=packed.recipe.channels, scale=1.0, offset=0.0)
    return Packed(data=packed.data, read=read, images_path=packed.images_path, masks_path=None)


def stamp_of(drawn: Drawn, request: FinetuneRequest, read: VolumeInput | None) -> str:
    """A hash that changes with the files, their labels and the way they are read.

    Args:
        drawn: the cases.
        request: what to adapt.
        read: how volumes are read; None for projections.
    """
    digest = hashlib.sha256(f"{PACKING} {read!r}".encode())
    for k, name in enumerate(drawn.names):
        if read is None:
            paths = [request.data / f"{name}.npy"]
        else:
            label = drawn.cases[k].label
            paths = [*drawn.cases[k].images.values(), *([label] if label is not None else [])]
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        digest.update(f"{name} {stats} {drawn.labels[k].tolist()}\n".encode())
    return digest.hexdigest()


def _kept(work: Path, stamp: str) -> dict[str, Any] | None:
    try:
        index: dict[str, Any] = json.loads((work / INDEX_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return index if index.get("stamp") == stamp and (work / VOLUMES_NAME).is_file() else None


@dataclass(frozen=True)
class ReadCase:
    """A case on its box.

    Attributes:
        image: (C, x, y, z).
        mask: (x, y, z) labels; None without.
        volumes_ml: of the labels.
    """

    image: NDArray[np.float32]
    mask: NDArray[np.uint8] | None
    volumes_ml: list[float]


def _read_case(case: Case, read: VolumeInput, labels: int) -> ReadCase | Reason:
    """One case on its box; the volumes of the labels are those of the file, not of the box."""
    from ukb_infer.imaging.volumes.preprocess import preprocess_labels
    from ukb_infer.imaging.volumes.read import read_volume

    try:
        image, grid, _ = read_session(case.images, read)
        if not labels or case.label is None:
            return ReadCase(image, None, [])
        native = read_volume(case.label, labels=True)
        volumes_ml = native.label_volumes_ml(labels)
        if not _lies_within(native, labels, grid):
            return Reason.MASK_ELSEWHERE
        mask = preprocess_labels(native, grid)
        mask[mask > labels] = 0
        return ReadCase(image, mask, volumes_ml)
    except ScanError as error:
        return error.reason


def _lies_within(mask: Volume, labels: int, box: Grid) -> bool:
    """Whether the centre of the labelled voxels lies within the box of the head; a mask without any is fine."""
    voxels = np.argwhere((mask.data > 0) & (mask.data <= labels))
    if not voxels.size:
        return True
    centre = np.linalg.inv(box.affine) @ mask.affine @ np.append(voxels.mean(axis=0), 1.0)
    return bool(np.all((centre[:3] > -1.0) & (centre[:3] < box.size)))


def read_in_order(cases: Sequence[Case], read: VolumeInput, labels: int = 0) -> Iterator[ReadCase | Reason]:
    """Cases on their boxes, or why not, in their order.

    Args:
        cases: with images.
        read: of the module.
        labels: of the outlines, 0 for none.
    """
    waiting: dict[int, ReadCase | Reason] = {}
    work, turn = partial(_read_case, read=read, labels=labels), 0
    workers = min(usable_cores(), len(cases))
    for index, result in run_in_workers(work, cases, workers=workers, timeout_s=_TIME_LIMIT_S, alone_s=_ALONE_S):
        waiting[index] = Reason.INTERNAL_ERROR if isinstance(result, Failure) else result
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


def _write(
    drawn: Drawn, request: FinetuneRequest, read: VolumeInput, work: Path, say: Say, progress: Progress
) -> dict[str, Any]:
    """Pack the usable cases; returns their rows and the volumes of their labels."""
    labels = len(request.targets) if request.output == "segmentation" else 0
    count, rows, volumes = len(drawn.cases), list[int](), list[list[float]]()
    failures: Counter[str] = Counter()
    progress(0, count, 0)
    try:
        with atomic_path(work / VOLUMES_NAME) as images_file, atomic_path(work / MASKS_NAME) as masks_file:
            images = np.lib.format.open_memmap(images_file, "w+", np.float32, (count, *read.form.shape))
            masks = np.lib.format.open_memmap(masks_file, "w+", np.uint8, (count if labels else 0, *read.size))
            for k, found in enumerate(read_in_order(drawn.cases, read, labels)):
                if isinstance(found, Reason):
                    failures[found.value] += 1
                else:
                    images[len(rows)] = found.image
                    if found.mask is not None:
                        masks[len(rows)] = found.mask
                    rows.append(k)
                    volumes.append(found.volumes_ml)
                progress(k + 1, count, sum(failures.values()))
            del images, masks
            if rows and len(rows) < count:
                _shorten(images_file, len(rows))
                if labels:
                    _shorten(masks_file, len(rows))
    except OSError as error:
        raise RunError(
            f"{work}: cannot be written ({error.strerror or error}); free space or choose another `work`"
        ) from error
    for code, number in failures.items():
        reason = Reason(code)
        say(f"{number} cases cannot be used: {code} ({reason.meaning}); {reason.advice}")
    if not rows:
        raise RunError(f"{request.data}: none of the {count} cases can be used; see the reasons above")
    return {"rows": rows, "volumes_ml": volumes, "names": [drawn.names[k] for k in rows]}


def _shorten(path: Path, count: int) -> None:
    """Leave out the last entries of a file, which are those of cases that cannot be used."""
    whole = np.load(path, mmap_mode="r")
    with atomic_path(path) as shorter:
        kept = np.lib.format.open_memmap(shorter, "w+", whole.dtype, (count, *whole.shape[1:]))
        for k in range(count):
            kept[k] = whole[k]
        del kept


def _mapped(path: Path, count: int) -> NDArray[Any]:
    """A packed file; a damaged one must not be taken for cases."""
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r")
        if len(found) != count:
            raise ValueError(f"{len(found)} entries, expected {count}")
        return found
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{path}: cannot be read ({error}); remove it, then run the same command again") from error
