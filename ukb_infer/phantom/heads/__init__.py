"""Synthetic heads: anatomy, contrasts by signal equations, sites, and data sets; they describe no real person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.phantom.heads.cohort import LAYOUTS, write_heads
    from ukb_infer.phantom.heads.population import sample_head
    from ukb_infer.phantom.heads.scanner import scan_head
    from ukb_infer.phantom.heads.sites import SITES

__getattr__ = on_first_use(
    __name__, {"cohort": "LAYOUTS write_heads", "population": "sample_head", "scanner": "scan_head", "sites": "SITES"}
)
