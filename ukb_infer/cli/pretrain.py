"""``ukb-infer pretrain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ukb_infer.cli import completion
from ukb_infer.cli import training_options as options
from ukb_infer.cli.common import ProgressDisplay

Data = Annotated[
    Path, typer.Option(metavar="DIR|images.csv", help="Folder of images, or the table made by `ukb-infer dataset`.")
]
Out = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the checkpoint.")]
Dim = Annotated[int, typer.Option(metavar="2|3", help="3: volumes of heads; 2: projections of bodies.")]
Objective = Annotated[
    str,
    completion.choice(
        "mae",
        "hybrid",
        "contrastive",
        help="mae: reconstruct what is masked; hybrid: reconstruct and compare pairs of one participant; "
        "contrastive: only compare them.",
    ),
]
Preset = Annotated[str, completion.choice("small", "base", help="Size of the encoder.")]
Steps = Annotated[int, typer.Option(metavar="N", help="Optimizer steps.")]
BatchSize = Annotated[int, typer.Option(metavar="N", help="Images (or pairs) per step.")]
LearningRate = Annotated[float, typer.Option(metavar="RATE", help="Highest learning rate.")]
Augment = Annotated[
    str,
    completion.choice(
        "all",
        "spatial",
        "intensity",
        "none",
        help="What is varied: position and size; contrast, bias field, blur and noise; both; nothing.",
    ),
]
Spacing = Annotated[float, typer.Option("--spacing", metavar="MM", help="Voxel side of the box of heads.")]
Size = Annotated[str, typer.Option(metavar="X,Y,Z", help="Voxels of the box of heads.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Random seed.")]
Precision = Annotated[str, completion.choice("fp32", "bf16", help="fp32, or bf16 on CUDA.")]
Workers = Annotated[int | None, typer.Option(metavar="N", help="Processes that read images [default: one per core].")]
Threads = Annotated[int, typer.Option(metavar="N", help="CPU threads [default: all cores].", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count the images; write nothing.")]


def pretrain(
    data: Data,
    out: Out,
    dim: Dim = 3,
    objective: Objective = "mae",
    preset: Preset = "small",
    steps: Steps = 5000,
    batch_size: BatchSize = 16,
    learning_rate: LearningRate = 1e-3,
    augment: Augment = "all",
    spacing_mm: Spacing = 3.5,
    size: Size = "48,48,32",
    seed: Seed = 0,
    device: options.Device = "auto",
    precision: Precision = "fp32",
    workers: Workers = None,
    threads: Threads = 0,
    warning: options.Warn = "",
    dry_run: DryRun = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Learn an encoder from images without labels.

    Images are preprocessed once. To resume after Ctrl-C or a kill, repeat the command. FOLDER then holds the encoder,
    which `adapt`, `embed` and (with --dim 2) `train --backbone conv_small --init FOLDER/encoder.safetensors` use;
    FOLDER/work has history.csv and pictures of reconstructions.

    Example:
        ukb-infer pretrain --data FOMO60K --out brain-mae

        ukb-infer pretrain --data projections --dim 2 --objective hybrid --steps 20000 --out body-hybrid
    """
    with ProgressDisplay("reading images", "image") as progress:
        from ukb_infer.training.pretrain.config import PretrainRequest, make_pretrain_config
        from ukb_infer.training.pretrain.pretrain import run_pretrain

        config = make_pretrain_config(
            dim, objective, preset, steps=steps, batch_size=batch_size, learning_rate=learning_rate, augment=augment,
            seed=seed, precision=precision, spacing_mm=spacing_mm, size=size,
        )  # fmt: skip
        request = PretrainRequest(
            data=data, out=out, config=config, device=device, workers=workers, threads=threads, warning=warning,
            overwrite=overwrite, dry_run=dry_run,
        )  # fmt: skip
        run_pretrain(request, typer.echo, progress)
