"""Agreement, calibration and ranking metrics; reading predictions."""

from ukb_infer.evaluation.compare import Comparison, TargetResult, compare
from ukb_infer.evaluation.cross_validation import CrossValidation, read_cross_validation
from ukb_infer.evaluation.metrics import (
    BINARY_METRICS,
    CONTINUOUS_METRICS,
    MetricValue,
    TargetPredictions,
    evaluate_target,
)
from ukb_infer.evaluation.predictions import Predictions, read_predictions
