"""What a system may return for a case: one number, a mask or an embedding, each checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ukb_infer.errors import UkbInferError
from ukb_infer.imaging.readers.gzipped import DamagedGzipError, open_contents
from ukb_infer.imaging.volumes.read import LABEL_TOLERANCE
from ukb_infer.tasks.task import Task

#: Suffix of an output by what the task returns.
SUFFIXES = {"class": ".txt", "regression": ".txt", "segmentation": ".nii.gz", "embedding": ".npy"}
#: A number takes fewer bytes.
_MAX_TEXT_BYTES = 1000
#: Affines that differ by less are equal, mm: they are stored as float32.
AFFINE_MM = 1e-3
#: Bytes of a mask on disk may not exceed this many per voxel of the input, and a header.
_MAX_VOXEL_BYTES, _HEADER_BYTES = 8, 1024**2


class Fault(Enum):
    """Why the output of a case does not count."""

    meaning: str

    NO_INPUT = "no_input", "the case lacks an image that the task needs"
    NOT_STARTED = "not_started", "the command cannot be started"
    TIMEOUT = "timeout", "it took longer than the limit"
    EXIT_CODE = "exit_code", "it ended with an error"
    CHANGED_INPUT = "changed_input", "it wrote to its input"
    NO_OUTPUT = "no_output", "it wrote nothing"
    WRONG_NAME = "wrong_name", "it wrote another file than it was told to"
    STALE_OUTPUT = "stale_output", "the file is older than the run"
    UNREADABLE = "unreadable", "the file is damaged or of another format"
    NOT_A_NUMBER = "not_a_number", "the file does not hold a number"
    SEVERAL_NUMBERS = "several_numbers", "the file holds more than one number"
    NOT_FINITE = "not_finite", "a value is NaN or infinite"
    OUT_OF_RANGE = "out_of_range", "the value is not possible"
    WRONG_SHAPE = "wrong_shape", "the array does not have the shape of the input"
    WRONG_AFFINE = "wrong_affine", "the mask lies elsewhere than the input"
    NOT_LABELS = "not_labels", "the mask holds fractions, not labels"
    UNKNOWN_LABEL = "unknown_label", "the mask holds labels that the task does not have"

    def __new__(cls, value: str, meaning: str) -> Fault:
        """Attach the meaning to the member."""
        member = object.__new__(cls)
        member._value_ = value
        member.meaning = meaning
        return member


class OutputError(UkbInferError):
    """The output of a case does not count.

    Args:
        fault: why.
        message: what was found and what was expected.
    """

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def read_value(path: Path, task: Task) -> float:
    """Read the number of a class or regression.

    Args:
        path: of a text file with one number.
        task: a class is a probability, a regression lies within its target's limits.

    Raises:
        OutputError: missing, not one number, not finite, out of range.
    """
    try:
        with path.open("rb") as handle:
            text = handle.read(_MAX_TEXT_BYTES).decode("utf-8", "replace").strip()
    except OSError as error:
        raise OutputError(Fault.NO_OUTPUT, f"{path.name}: {error.strerror}") from None
    words = text.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if not values or "_" in text:
        raise OutputError(Fault.NOT_A_NUMBER, f"got {text[:40]!r}, expected one number")
    if len(values) > 1:
        raise OutputError(Fault.SEVERAL_NUMBERS, f"got {text[:40]!r}, expected one number")
    (value,) = values
    if not math.isfinite(value):
        raise OutputError(Fault.NOT_FINITE, f"got {text[:40]!r}")
    target = task.targets[0]
    lower = -math.inf if target.lower is None else target.lower
    upper = math.inf if target.upper is None else target.upper
    if not lower <= value <= upper:
        raise OutputError(Fault.OUT_OF_RANGE, f"got {value:g}, expected {lower:g} to {upper:g}")
    return value


def read_mask(
    path: Path, task: Task, grids: Sequence[tuple[tuple[int, ...], NDArray[np.float64]]]
) -> NDArray[np.uint8]:
    """Read the labels of a segmentation; a mask without any is allowed.

    Args:
        path: of a NIfTI file.
        task: its targets are the labels 1, 2 ...
        grids: shape and (4, 4) affine of the images, with one of which the mask must agree in both.

    Returns:
        (X, Y, Z) labels as stored.

    Raises:
        OutputError: missing, damaged, on another grid, with other values than the task's labels.
    """
    if not path.is_file():
        raise OutputError(Fault.NO_OUTPUT, f"{path.name} does not exist")
    shape, affine = read_grid(path)
    _check_grid(shape, affine, grids)
    _check_to_the_end(path, shape)
    try:
        data = np.asanyarray(nib.load(path).dataobj)
    except Exception as error:  # nibabel raises many kinds
        raise OutputError(Fault.UNREADABLE, f"{path.name}: {error}") from None
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise OutputError(Fault.NOT_FINITE, "the mask holds NaN or infinite values")
    if data.dtype.kind == "f" and float(np.abs(data - np.rint(data)).max(initial=0.0)) <= LABEL_TOLERANCE:
        data = np.rint(data)  # scaled integers are whole but for rounding
    elif data.dtype.kind not in "iub":
        raise OutputError(Fault.NOT_LABELS, f"got {data.dtype} with fractions, expected whole labels, best as uint8")
    low, high, most = int(data.min(initial=0)), int(data.max(initial=0)), len(task.targets)
    if low < 0 or high > most:
        raise OutputError(Fault.UNKNOWN_LABEL, f"got labels from {low} to {high}, expected 0 to {most}")
    return np.asarray(data, dtype=np.uint8)


def read_grid(path: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and (4, 4) affine in mm of a NIfTI file; no voxel is read.

    Raises:
        OutputError: not a NIfTI file, or a header that cannot be read.
    """
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image | nib.Nifti2Image):
            raise ValueError(f"it is a {type(image).__name__}")
        return tuple(image.shape), np.asarray(image.affine, dtype=np.float64)
    except Exception as error:  # nibabel raises many kinds
        raise OutputError(Fault.UNREADABLE, f"{path.name} is not a NIfTI file that can be read ({error})") from None


def _check_grid(
    shape: tuple[int, ...], affine: NDArray[np.float64], grids: Sequence[tuple[tuple[int, ...], NDArray[np.float64]]]
) -> None:
    same = [wanted for wanted in grids if wanted[0] == shape]
    if not same:
        raise OutputError(Fault.WRONG_SHAPE, f"got {shape}, expected {grids[0][0]}")
    if not any(np.allclose(wanted[1], affine, rtol=1e-5, atol=AFFINE_MM) for wanted in same):
        got, expected = (np.round(a[:3], 3).tolist() for a in (affine, same[0][1]))
        raise OutputError(Fault.WRONG_AFFINE, f"got {got}, expected {expected}")


def _check_to_the_end(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse truncated and damaged gzip data, also behind the last voxel that is needed."""
    left = math.prod(shape) * _MAX_VOXEL_BYTES + _HEADER_BYTES
    try:
        with open_contents(path) as contents:
            while chunk := contents.read(1024**2):
                left -= len(chunk)
                if left < 0:
                    raise OutputError(Fault.UNREADABLE, f"{path.name} holds more data than its header says")
    except DamagedGzipError as error:
        raise OutputError(Fault.UNREADABLE, f"{path.name} {error}") from None


def read_embedding(path: Path) -> NDArray[np.float32]:
    """Read a 1-D vector of floats.

    Raises:
        OutputError: missing, damaged, of another shape or type, not finite.
    """
    if not path.is_file():
        raise OutputError(Fault.NO_OUTPUT, f"{path.name} does not exist")
    try:
        found = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds
        raise OutputError(Fault.UNREADABLE, f"{path.name}: {error}") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
        raise OutputError(Fault.NOT_A_NUMBER, f"got {getattr(found, 'dtype', 'an archive')}, expected floats")
    if found.ndim != 1 or not found.size:
        raise OutputError(Fault.WRONG_SHAPE, f"got shape {found.shape}, expected one dimension")
    if not np.isfinite(found).all():
        raise OutputError(Fault.NOT_FINITE, "the vector holds NaN or infinite values")
    return np.asarray(found, dtype=np.float32)
