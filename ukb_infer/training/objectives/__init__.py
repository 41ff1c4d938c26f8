"""Training objectives, one per file, and their registries."""

from ukb_infer.training.objectives.classification import Classification
from ukb_infer.training.objectives.contrastive import Contrastive
from ukb_infer.training.objectives.hybrid import Hybrid
from ukb_infer.training.objectives.masked_reconstruction import MaskedReconstruction
from ukb_infer.training.objectives.objective import Objective
from ukb_infer.training.objectives.regression import Regression
from ukb_infer.training.objectives.segmentation import Segmentation
from ukb_infer.training.objectives.unlabelled import Unlabelled

#: Name to objective with labels; ``[objective] name`` of a configuration chooses.
OBJECTIVES: dict[str, type[Objective]] = {
    "regression": Regression, "classification": Classification, "segmentation": Segmentation,
}  # fmt: skip
#: Name to objective without labels; `pretrain --objective` chooses.
PRETRAINING: dict[str, type[Unlabelled]] = {"mae": MaskedReconstruction, "hybrid": Hybrid, "contrastive": Contrastive}

__all__ = ["OBJECTIVES", "PRETRAINING", "Classification", "Objective", "Regression", "Segmentation", "Unlabelled"]
