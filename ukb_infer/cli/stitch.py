"""``ukb-infer stitch``."""

from __future__ import annotations

from ukb_infer.cli import options
from ukb_infer.cli.common import ProgressDisplay, finish
from ukb_infer.cli.shared import shares


@shares(options.ScanOptions)
def stitch(
    *, shared: options.ScanOptions, contrasts: options.Contrasts = "water,fat", spacing: options.Spacing = "native"
) -> None:
    """Fuse every scan's stations into one body and write it as NIfTI, a 3D file a contrast.

    Writes FOLDER/sub-EID/ses-INSTANCE/anat/sub-EID_ses-INSTANCE_acq-dixon_rec-water_desc-fused_T1w.nii.gz, a .json
    beside each (stations, seams, gains, storage), scans.csv and quality.csv. Voxels run to the right, to the front and
    up, and sform and qform say so. fraction is F/(W+F) in 0-1. The run is continued, sharded, merged and retried as
    those of `project`.

    `volumetry` takes a label map that was drawn on it back to litres.

    Example:
        ukb-infer stitch /data/20201 --out bodies --contrasts water,fat,fraction

        ukb-infer stitch scan.zip --out bodies --contrasts in,opposed --spacing 2
    """
    from ukb_infer.inference.config import StitchConfig

    config = StitchConfig(contrasts=options.split_names(contrasts), spacing=spacing, **shared.settings())
    with ProgressDisplay("stitch") as progress:
        from ukb_infer.inference.stitch import run_stitch

        summary = run_stitch(config, progress)
    finish(summary)
