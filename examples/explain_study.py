"""Whether saliency maps point at the organ: the share of a map inside it, on phantoms, which know where everything is.

The table of docs/explain.md, in some ten minutes; `--modules` may name another module, and without options two bodies
are explained by one method:

    python examples/explain_study.py --work WORK --count 20 --methods integrated-gradients,occlusion,gradcam

An organ's region is its projection and what lies within one pixel of the network's input. Chance is the region's share
of the body's pixels. Synthetic bodies: this says nothing about people.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation

from ukb_infer.explain.explain import ExplainConfig, map_path, run_explain
from ukb_infer.explain.methods import DEFAULT_METHOD
from ukb_infer.imaging.recipes import get_recipe
from ukb_infer.modules import find_module, read_manifest
from ukb_infer.phantom.cohort import MASKS, TRUTH_NAME, write_cohort

#: Target, and the organ that it should rest on.
ORGANS = {"AtlasTotalThighMuscleVolume": "thighs", "liverFat": "liver", "AtlasVatVolume": "trunk"}
SEED = 8181


def regions(folder: Path, scan: str, organ: str, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, cols) bool: the organ's region, and the body."""
    with np.load(folder / MASKS / f"{scan}.npz") as masks:
        near = np.ones((3, 3), bool)
        return binary_dilation(masks[organ], near, iterations=pixels), masks["body"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=None, help="working folder [default: a temporary one]")
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--modules", default="phantom-demo")
    parser.add_argument("--methods", default=DEFAULT_METHOD)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    args.work = args.work or Path(tempfile.mkdtemp())
    module = find_module(args.modules)
    manifest = read_manifest(module)
    recipe = get_recipe(manifest.input.recipe)
    pixels = recipe.shape[1] // (manifest.input.size or recipe.shape[1:])[0]
    scans = args.work / "scans"
    if not (scans / TRUTH_NAME).is_file():
        write_cohort(scans, args.count, SEED, size="small", masks=recipe.project, workers=args.workers)
    print(f"{manifest.name}, {args.count} phantoms, network pixels of {pixels} x {pixels}\n")
    print("| method | " + " | ".join(f"{target} in the {organ}" for target, organ in ORGANS.items()) + " |")
    print("|---" * (1 + len(ORGANS)) + "|")
    names = sorted(path.stem for path in (scans / MASKS).glob("*.npz"))
    chance = []
    for organ in ORGANS.values():
        pairs = [regions(scans, name, organ, pixels) for name in names]
        chance.append(np.mean([(region & body).sum() / body.sum() for region, body in pairs]))
    for method in args.methods.split(","):
        out = args.work / f"{manifest.name}-{method}"
        run_explain(ExplainConfig(inputs=(str(scans),), out=out, modules=(str(module),), targets=tuple(ORGANS),
                                  method=method, png=False, workers=args.workers))  # fmt: skip
        cells = []
        for target, organ in ORGANS.items():
            shares = []
            for name in names:
                saliency = np.load(map_path(out, name, target))
                shares.append(saliency[regions(scans, name, organ, pixels)[0]].sum() / saliency.sum())
            cells.append(f"{np.mean(shares):.2f} (sd {np.std(shares):.2f})")
        print(f"| {method} | " + " | ".join(cells) + " |", flush=True)
    print("| chance | " + " | ".join(f"{value:.2f}" for value in chance) + " |")


if __name__ == "__main__":
    main()
