"""The command line of the challenge's containers: the images of one case in, one file out.

``scripts/containers/fomo/predict.py`` is this module's :func:`main`. The flags are those of FOMO25's tasks 1-3 and
FOMO26's tasks 1-7; the suffix of ``--output`` says what is wanted.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ukb_infer.errors import UkbInferError, UsageError
from ukb_infer.modules.find import shipped_modules_folder
from ukb_infer.modules.manifest import MANIFEST_NAME
from ukb_infer.tasks.outputs import SUFFIXES
from ukb_infer.tasks.registry import TASKS, get_task
from ukb_infer.tasks.task import Task

#: A module, or a folder with modules named like their tasks; and the task, where the flags do not tell it.
WEIGHTS, TASK = "UKB_INFER_FOMO_WEIGHTS", "UKB_INFER_FOMO_TASK"
#: Folder of the weights beside the script.
BESIDE = "weights"
_FLAGS = {
    "--t1": "t1", "--t2": "t2", "--flair": "flair", "--dwi": "dwi", "--dwi_b1000": "dwi", "--adc": "adc",
    "--t2s": "t2s", "--swi": "swi",
}  # fmt: skip
#: Folder of the encoder shipped with the package, and the file that makes a folder one.
_SHIPPED, _PRETRAINED = "brain-pretrained", "pretrained.json"
#: Modality of the one image of an embedding, whatever its contrast.
_ANY = "input"
#: Flags that FOMO25 and FOMO26 write differently.
_TELLING = frozenset({"--dwi_b1000", "--dwi"})


def main(arguments: Sequence[str], beside: Path) -> int:
    """Answer one case; returns the exit code, other than 0 if there is no output.

    Args:
        arguments: of the command line.
        beside: folder of the script, where weights are looked for.
    """
    for flag, value in itertools.pairwise(arguments):
        if flag == "--output":  # a case that fails leaves nothing, not even of an earlier run
            with contextlib.suppress(OSError):  # said below
                Path(value).unlink()
    given, strange = _parser().parse_known_args(arguments)
    images = {m: getattr(given, m) for m in dict.fromkeys((*_FLAGS.values(), _ANY)) if getattr(given, m) is not None}
    try:
        given.output.unlink(missing_ok=True)
        if strange:
            raise UsageError(f"unknown {' '.join(strange)}; expected {', '.join(_FLAGS)}, --input, --output or --task")
        if _flags_of(arguments) >= _TELLING:
            raise UsageError(f"got both {' and '.join(sorted(_TELLING))}, expected one of them")
        answer(images, given.output, beside, given.task or os.environ.get(TASK, ""), _flags_of(arguments))
    except (UkbInferError, OSError) as error:
        print(f"predict.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _flags_of(arguments: Sequence[str]) -> frozenset[str]:
    """Flags of the images given, as they were written."""
    return frozenset(word.split("=", 1)[0] for word in arguments) & frozenset(_FLAGS)


def answer(
    images: Mapping[str, Path], output: Path, beside: Path, task: str = "", flags: frozenset[str] = frozenset()
) -> None:
    """Apply the weights found to one case and write the output, whole or not at all.

    Args:
        images: path by modality; ``input`` for one image of any.
        output: ``.txt``, ``.nii.gz`` or ``.npy``.
        beside: folder of the script.
        task: name in the registry; "" to tell it from the images and weights.
        flags: see :func:`find_weights`.

    Raises:
        UkbInferError: no weights, or a case that cannot be used.
    """
    if not images:
        raise UsageError("no image is given; expected --flair, --t1 ... or --input")
    missing = next((path for path in images.values() if not path.is_file()), None)
    if missing is not None:
        raise UsageError(f"{missing} does not exist")
    if not output.parent.is_dir():
        raise UsageError(f"the folder of {output} does not exist")
    folder = find_weights(images, output, beside, task, flags)
    if not (folder / MANIFEST_NAME).is_file():
        return _embed(folder, images, output)
    from ukb_infer.modules import load_module
    from ukb_infer.networks.device import choose_device
    from ukb_infer.tasks.predict import write_answer

    module = load_module(folder, choose_device("auto"))
    write_answer(module, _as_read(images, getattr(module.manifest.input, "modalities", ())), output)
    return None


def find_weights(
    images: Mapping[str, Path], output: Path, beside: Path, task: str = "", flags: frozenset[str] = frozenset()
) -> Path:
    """Folder of the weights: that of the environment variable, beside the script, or shipped with the package.

    Args:
        images: path by modality.
        output: its suffix says what is wanted.
        beside: folder of the script.
        task: name in the registry, or "".
        flags: of the images, which tell FOMO25's tasks from FOMO26's (``--dwi_b1000``, ``--dwi``).

    Raises:
        UsageError: none, or several fit.
    """
    named = os.environ.get(WEIGHTS, "")
    places = [Path(named)] if named else [beside / BESIDE]
    used = {get_task(task).name: 1} if task else {t.name: n for t in TASKS.values() if (n := _used(t, images, output))}
    if output.suffix == ".npy":
        places.append(shipped_modules_folder())
        used[_SHIPPED] = 1
    for place in places:
        if any((place / name).is_file() for name in (MANIFEST_NAME, _PRETRAINED)):
            return place
        there = {name: count for name, count in used.items() if (place / name).is_dir()}
        fitting = [name for name, count in there.items() if count == max(there.values())]
        fitting = [name for name in fitting if (flags & _TELLING) <= _options(name)] or fitting
        if len(fitting) > 1:
            raise UsageError(f"several weights fit these images ({', '.join(fitting)}); give --task or set {TASK}")
        if fitting:
            return place / fitting[0]
    where = " or ".join(str(place) for place in places)
    raise UsageError(f"no weights for {', '.join(used) or output.name} in {where}; set {WEIGHTS} to a module's folder")


def _options(task: str) -> set[str]:
    """Flags of a task's images; none for the encoder."""
    return set(dict(TASKS[task].flags).values()) if task in TASKS else set()


def _embed(folder: Path, images: Mapping[str, Path], output: Path) -> None:
    """Write the features of a pretrained encoder, the mean over the images given."""
    if output.suffix != ".npy":
        raise UsageError(field="output", got=output.name, expected="a name that ends in .npy")
    from ukb_infer.inference.embed import PretrainedEmbedder
    from ukb_infer.networks.device import choose_device
    from ukb_infer.networks.pretrained import load_pretrained
    from ukb_infer.storage import save_array

    embedder = PretrainedEmbedder(load_pretrained(folder), choose_device("auto"))
    save_array(output, embedder.embed_files(list(images.values())))


def _used(task: Task, images: Mapping[str, Path], output: Path) -> int:
    """Number of the images that a task uses; 0 if it lacks one or returns another kind of file."""
    whole = all(any(m in images for m in channel) for channel in task.inputs)
    fits = bool(task.flags) and whole and output.name.endswith(SUFFIXES[task.output])
    return len(set(images) & {m for channel in task.inputs for m in channel}) if fits else 0


def _as_read(images: Mapping[str, Path], modalities: Sequence[Sequence[str]]) -> Mapping[str, Path]:
    """The image of unknown contrast as the first one that the module reads."""
    return {modalities[0][0]: images[_ANY]} if _ANY in images and modalities else images


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="predict.py", description="One case of FOMO25 or FOMO26.", allow_abbrev=False)
    for flag, modality in _FLAGS.items():
        parser.add_argument(flag, dest=modality, type=Path, metavar="FILE", help=f"{modality} as NIfTI")
    parser.add_argument("--input", dest=_ANY, type=Path, metavar="FILE", help="any image, for the embedding")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help=".txt, .nii.gz or .npy")
    parser.add_argument("--task", default="", metavar="NAME", help=f"where the flags do not tell it [default: {TASK}]")
    return parser
