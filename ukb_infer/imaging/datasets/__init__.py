"""Data sets of heads and bodies: layouts, the table of images, and cases with labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.imaging.datasets.cases import Case, read_cases
    from ukb_infer.imaging.datasets.dataset import make_dataset
    from ukb_infer.imaging.datasets.index import index_dataset
    from ukb_infer.imaging.datasets.names import MODALITIES
    from ukb_infer.imaging.datasets.table import ImageRow, read_images, write_images

__getattr__ = on_first_use(
    __name__,
    {
        "cases": "Case read_cases",
        "dataset": "make_dataset",
        "index": "index_dataset",
        "names": "MODALITIES",
        "table": "ImageRow read_images write_images",
    },
)
