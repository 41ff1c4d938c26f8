"""Rebuild an encoder of models/ from scratch: synthetic heads, their table of images, pretraining."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ukb_infer.execution import usable_cores
from ukb_infer.imaging.datasets import index_dataset, write_images
from ukb_infer.networks.pretrained import DECODER_NAME, ENCODER_NAME, FACTS_NAME
from ukb_infer.phantom.heads import SITES, write_heads
from ukb_infer.training.pretrain.config import PretrainRequest, make_pretrain_config
from ukb_infer.training.pretrain.pretrain import run_pretrain

WARNING = "Learned from synthetic heads only, never from a person's scan; for trying the commands, not for results."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="working folder; a repeated call resumes")
    parser.add_argument("--out", type=Path, default=Path("models/brain-pretrained"))
    parser.add_argument("--heads", type=int, default=600, help="participants")
    parser.add_argument("--seed", type=int, default=7, help="of the cohort")
    parser.add_argument("--site", action="append", help="of the heads, repeatable; default: a to e")
    parser.add_argument("--size", choices=("small", "full"), default="small", help="of the stored heads")
    parser.add_argument("--objective", default="mae")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    args = parser.parse_args()
    heads, table, cores = args.work / "heads", args.work / "images.csv", usable_cores()
    if not table.is_file():
        write_heads(
            heads,
            "fomo60k",
            args.heads,
            args.seed,
            sites=args.site or (),
            size=args.size,
            workers=cores,
            overwrite=True,
        )
        write_images(index_dataset(heads, validation=0.1, workers=cores), table)
    config = make_pretrain_config(
        3, args.objective, steps=args.steps, batch_size=args.batch_size, learning_rate=args.learning_rate
    )
    checkpoint = args.work / args.out.name
    run_pretrain(PretrainRequest(data=table, out=checkpoint, config=config, warning=WARNING))
    args.out.mkdir(parents=True, exist_ok=True)
    for name in (ENCODER_NAME, DECODER_NAME, FACTS_NAME):
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, args.out / name)
    (args.out / "README.md").write_text((checkpoint / "README.md").read_text() + origin(args))


def origin(args: argparse.Namespace) -> str:
    """How the checkpoint was made, and which sites it has not seen."""
    given = [f"--{name.replace('_', '-')} {getattr(args, name)}" for name in ("heads", "steps", "batch_size")]
    if args.objective != "mae":
        given = [f"--out {args.out}", f"--objective {args.objective}", *given]
    command = " ".join(
        ["python scripts/make_brain_pretrained.py --work WORK", *given, *(f"--site {s}" for s in args.site or ())]
    )
    unseen = sorted(set(SITES) - set(args.site or SITES))
    said = f"It has not seen a head of {', '.join(unseen)}.\n" if unseen else ""
    return f"\nMade by `{command}`.\n{said}\nLicence: Apache-2.0.\n"


if __name__ == "__main__":
    main()
