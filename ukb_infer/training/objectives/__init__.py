"""Training objectives, one per file, and their registry."""

from ukb_infer.training.objectives.classification import Classification
from ukb_infer.training.objectives.objective import Objective
from ukb_infer.training.objectives.regression import Regression
from ukb_infer.training.objectives.segmentation import Segmentation

#: Name to objective; ``[objective] name`` of a configuration chooses.
OBJECTIVES: dict[str, type[Objective]] = {
    "regression": Regression, "classification": Classification, "segmentation": Segmentation,
}  # fmt: skip

__all__ = ["OBJECTIVES", "Classification", "Objective", "Regression", "Segmentation"]
