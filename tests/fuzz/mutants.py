"""Mutated inputs for every reader, each fully determined by (target, number).

Half of the mutants of an archive are mutated inside its members and packed again with right checksums, because random
damage to the whole file hardly ever gets past them.
"""

from __future__ import annotations

import io
import random
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "imaging"))
from tests.support.small_scans import make_slices, write_nifti_stations, write_zip
from ukb_infer.errors import UkbInferError
from ukb_infer.records import ReadingOptions

TARGETS = ("zip", "dicom", "nifti", "projection", "module", "list", "labels")
#: Shares of the targets in a run: the readers of participants' files get most.
SHARES = {"zip": 6, "dicom": 6, "nifti": 4, "projection": 1, "module": 1, "list": 1, "labels": 1}
NIFTI_NAME = "station{}_{}.nii"
NIFTI_FILES = tuple(NIFTI_NAME.format(k, letter) for k in (1, 2) for letter in "WF")
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ANY = ReadingOptions(expected_stations=0)


@cache
def seeds(target: str) -> tuple[bytes, ...]:
    """Valid inputs to start from."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if target == "zip":
            return (write_zip(folder / "a.zip", make_slices(2, "WF")).read_bytes(),)
        if target == "dicom":
            with zipfile.ZipFile(write_zip(folder / "a.zip", make_slices(2, "WF"))) as archive:
                return tuple(archive.read(n) for n in archive.namelist() if n.endswith(".dcm"))
        if target == "nifti":
            from ukb_infer.imaging import read_stations

            stations = read_stations(write_zip(folder / "a.zip", make_slices(2, "WF")), ANY).stations
            write_nifti_stations(folder / "n", stations, NIFTI_NAME)
            return tuple((folder / "n" / file).read_bytes() for file in NIFTI_FILES)
        if target == "projection":
            buffer = io.BytesIO()
            np.save(buffer, np.arange(3 * 256 * 256, dtype=np.uint32).reshape(3, 256, 256).astype(np.uint8))
            return (buffer.getvalue(),)
        if target == "module":
            manifest = Path(__file__).parents[2] / "models/phantom-demo/module.json"
            return (manifest.read_bytes()[:20_000], manifest.read_bytes())
        if target == "list":
            return (b'path\ndata/a.zip\n~/c.zip\nb.zip\n0000001 20201_2_0\n0000002_20201_3_0\n"x y.zip",1\n',)
        return (
            b"eid,instance,p21002_i2,height\n0000001,2,80.5,170\n0000002,3,-1,\n",
            b"scan\tsex\n0000001_20201_2_0\t1\n",
        )


def damage(data: bytes, rng: random.Random) -> bytes:
    """One to eight random edits of any kind."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not content:
            break
        place, kind = rng.randrange(len(content)), rng.randrange(8)
        if kind == 0:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place] = rng.choice((0, 1, 0x20, 0x30, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            size, order = rng.choice((2, 4)), rng.choice(("little", "big"))
            number = rng.choice(_NUMBERS) & ((1 << 8 * size) - 1)
            content[place : place + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
        elif kind == 3:
            del content[place : place + rng.choice((1, 2, 8, 64, 1024))]
        elif kind == 4:
            content[place:place] = rng.randbytes(rng.choice((1, 2, 8, 64)))
        elif kind == 5:
            del content[place:]
        elif kind == 6:
            start, length = rng.randrange(len(content)), rng.choice((2, 8, 64, 512))
            content[place:place] = content[start : start + length]
        else:
            start, length = rng.randrange(len(content)), rng.choice((2, 8, 64, 512))
            content[place : place + length] = content[start : start + length]
    return bytes(content)


def damage_zip(data: bytes, rng: random.Random) -> bytes:
    """Damage inside members, or to names and order, packed again with right checksums."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(i.filename, archive.read(i)) for i in archive.infolist()]
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(members))
        name, content = members[place]
        kind = rng.randrange(6)
        if kind <= 2:
            members[place] = (name, damage(content[:2000], rng) + content[2000:])
        elif kind == 3:
            del members[place]
        elif kind == 4:
            members.append((rng.choice(("../../evil", "/etc/evil", "a\\b", "x" * 300, "manifest.csv", name)), content))
        else:
            members[place] = (members[rng.randrange(len(members))][0] + rng.choice(("", ".dcm")), content)
        if not members:
            break
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def mutant(target: str, number: int) -> bytes:
    """The mutant of a number."""
    rng = random.Random(f"{target} {number}")
    data = rng.choice(seeds(target))
    if target == "zip" and rng.random() < 0.8:
        return damage_zip(data, rng)
    if target == "nifti" and rng.random() < 0.7:
        return damage(data[:352], rng) + data[352:]
    return damage(data, rng)


# -- what is done with them ------------------------------------------------------------------------------------------


def _zip(content: bytes, folder: Path, number: int) -> None:
    from ukb_infer.imaging import read_stations

    path = folder / "0000001_20201_2_0.zip"
    path.write_bytes(content)
    read_stations(path, ANY)


def _dicom(content: bytes, folder: Path, number: int) -> None:
    """One slice of a scan's folder is a mutant."""
    from ukb_infer.imaging import read_stations

    whole = seeds("dicom")
    for k in range(len(whole)):
        path = folder / f"{k:03d}.dcm"
        path.write_bytes(content if k == number % len(whole) else whole[k])
    read_stations(folder, ANY)


def _nifti(content: bytes, folder: Path, number: int) -> None:
    from ukb_infer.imaging import read_stations

    whole = seeds("nifti")
    for k, file in enumerate(NIFTI_FILES):
        (folder / file).write_bytes(content if k == number % len(whole) else whole[k])
    read_stations(folder, ANY)


def _projection(content: bytes, folder: Path, number: int) -> None:
    from ukb_infer.imaging import read_projection
    from ukb_infer.imaging.recipes import RECIPES

    path = folder / "a.npy"
    path.write_bytes(content)
    read_projection(path, RECIPES["mimir-1"])


def _module(content: bytes, folder: Path, number: int) -> None:
    from ukb_infer.modules import read_manifest

    (folder / "module.json").write_bytes(content)
    read_manifest(folder)


def _list(content: bytes, folder: Path, number: int) -> None:
    from ukb_infer.inference.inputs import read_exclusions, resolve_inputs

    path = folder / "list.csv"
    path.write_bytes(content)
    read_exclusions([path])
    resolve_inputs([str(path)], folder)


def _labels(content: bytes, folder: Path, number: int) -> None:
    from ukb_infer.labels import read_labels

    path = folder / ("labels.tsv" if number % 2 else "labels.csv")
    path.write_bytes(content)
    read_labels(path)


ACTIONS: dict[str, Callable[[bytes, Path, int], None]] = {
    "zip": _zip, "dicom": _dicom, "nifti": _nifti, "projection": _projection, "module": _module, "list": _list,
    "labels": _labels,
}  # fmt: skip


def read_mutant(target: str, number: int, folder: Path) -> str:
    """Give a mutant to its reader in an empty folder.

    Returns:
        ``read``, or the kind of the error the package raised on purpose.

    Raises:
        Exception: anything else: a defect.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        ACTIONS[target](mutant(target, number), folder, number)
    except UkbInferError as error:
        if not str(error):
            raise RuntimeError("an error without words") from error
        return type(error).__name__
    return "read"
