"""Whether saliency maps point at the organ: the share of a map inside it, on phantoms, which know where everything is.

The table of docs/explain.md, in some ten minutes; `--modules` may name another module, and without options two bodies
are explained by one method:

    python examples/explain_study.py --work WORK --count 20 --methods integrated-gradients,occlusion,gradcam

A column is a target, an organ, and how many pixels around its projection count as it: networks on 64 x 64 see blocks of
4 pixels. Chance is the region's share of the body's pixels. Synthetic bodies: this says nothing about people.
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
#: Pixels around an organ's projection that count as the organ.
MARGINS = (0, 4, 8, 16)
SEED = 8181


def regions(folder: Path, scan: str, organ: str, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, cols) bool: the organ's region, and the body."""
    with np.load(folder / MASKS / f"{scan}.npz") as masks:
        near = np.ones((3, 3), bool)
        wide = binary_dilation(masks[organ], near, iterations=pixels) if pixels else masks[organ]
        return wide, masks["body"]


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
    scans = args.work / "scans"
    if not (scans / TRUTH_NAME).is_file():
        write_cohort(scans, args.count, SEED, size="small", masks=recipe.project, workers=args.workers)
    names = sorted(path.stem for path in (scans / MASKS).glob("*.npz"))
    print(f"{manifest.name}, networks on {manifest.input.size or recipe.shape[1:]} pixels, {len(names)} phantoms\n")
    heads = [f"{target}, {organ} {margin:+d}" for target, organ in ORGANS.items() for margin in MARGINS]
    print(f"| method | {' | '.join(heads)} |\n|{'---|' * (1 + len(heads))}")
    chance = [np.mean([region[body].mean() for region, body in (regions(scans, name, organ, margin) for name in names)])
              for organ in ORGANS.values() for margin in MARGINS]  # fmt: skip
    for method in args.methods.split(","):
        out = args.work / f"{manifest.name}-{method}"
        run_explain(ExplainConfig(inputs=(str(scans),), out=out, modules=(str(module),), targets=tuple(ORGANS),
                                  method=method, png=False, workers=args.workers))  # fmt: skip
        cells = []
        for target, organ in ORGANS.items():
            maps = [np.load(map_path(out, name, target)) for name in names]
            for margin in MARGINS:
                inside = [regions(scans, name, organ, margin)[0] for name in names]
                cells.append(np.mean([m[region].sum() / m.sum() for m, region in zip(maps, inside, strict=True)]))
        print(f"| {method} | " + " | ".join(f"{share:.2f}" for share in cells) + " |", flush=True)
    print("| chance | " + " | ".join(f"{share:.2f}" for share in chance) + " |")


if __name__ == "__main__":
    main()
