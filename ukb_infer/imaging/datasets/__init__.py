"""Data sets of heads and bodies: layouts, the table of images, and cases with labels."""

from ukb_infer.imaging.datasets.cases import Case, read_cases
from ukb_infer.imaging.datasets.index import index_dataset
from ukb_infer.imaging.datasets.names import MODALITIES
from ukb_infer.imaging.datasets.table import ImageRow, read_images, write_images
