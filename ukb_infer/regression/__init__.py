"""Losses, the numerical chain after the network, and calibration as pure functions.

The losses need torch and are imported from ``ukb_infer.regression.losses``.
"""

from ukb_infer.regression.calibration import (
    conformal_half_width,
    conformal_table,
    coverage_area,
    variance_factor_closed_form,
    variance_factor_coverage,
)
from ukb_infer.regression.chain import (
    Mixture,
    calibrate,
    combine_members,
    combine_modules,
    convert_units,
    destandardize,
    gaussian_quantile,
    prediction_interval,
)
from ukb_infer.regression.log_variance import LogVariance, variance_from_raw
