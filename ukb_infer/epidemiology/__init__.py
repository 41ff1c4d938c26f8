"""Valid use of estimates: associations, and inputs and results of genome-wide association studies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.epidemiology.associate import Association, Associations, associate
    from ukb_infer.epidemiology.cohort import Cohort, Sources, read_cohort

__getattr__ = on_first_use(
    __name__,
    {"associate": "Association Associations associate", "cohort": "Cohort Sources read_cohort"},
)
