"""Labels: tables of measured values, resolved to targets, checked for units and special codes (floor 1)."""

from ukb_infer.labels.columns import LabelColumn, parse_column
from ukb_infer.labels.definitions import read_definitions
from ukb_infer.labels.reading import Labels, LabelSummary, read_labels

__all__ = ["LabelColumn", "LabelSummary", "Labels", "parse_column", "read_definitions", "read_labels"]
