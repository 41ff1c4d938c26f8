"""Labels: tables of measured values, resolved to targets, checked for units and special codes.

Names are imported on first use, so that lists of ids are read without pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.labels.columns import parse_column
    from ukb_infer.labels.definitions import read_definitions
    from ukb_infer.labels.id_lists import IdList, read_id_list
    from ukb_infer.labels.reading import Labels, read_labels

__getattr__ = on_first_use(
    __name__,
    {
        "columns": "parse_column",
        "definitions": "read_definitions",
        "id_lists": "IdList read_id_list",
        "reading": "Labels read_labels",
    },
)
