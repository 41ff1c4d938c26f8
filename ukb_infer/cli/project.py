"""``ukb-infer project``."""

from __future__ import annotations

from ukb_infer.cli import options
from ukb_infer.cli.common import ProgressDisplay, finish
from ukb_infer.cli.shared import shares
from ukb_infer.imaging.recipes import DEFAULT_RECIPE


@shares(options.ScanOptions)
def project(
    *,
    shared: options.ScanOptions,
    recipe: options.Recipe = DEFAULT_RECIPE,
    png: options.Png = False,
    volumes: options.Volumes = False,
) -> None:
    """Fuse and project every scan, without estimating anything.

    Writes FOLDER/<scan>.npy, with the recipe's type and shape, scans.csv and quality.csv. `predict` accepts the folder
    as input if its modules use the same recipe.

    Example:
        ukb-infer project /data/20201 --out projections --png

        ukb-infer predict projections --out run --modules my-module
    """
    from ukb_infer.inference.config import ProjectConfig

    config = ProjectConfig(recipe=recipe, png=png, volumes=volumes, **shared.settings())
    with ProgressDisplay("project") as progress:
        from ukb_infer.inference.project import run_project

        summary = run_project(config, progress)
    finish(summary)
