"""Training objectives, one per file, and their registry."""

from ukb_infer.training.objectives.objective import Objective
from ukb_infer.training.objectives.regression import Regression

#: Name to objective; ``[objective] name`` of a configuration chooses.
OBJECTIVES: dict[str, type[Objective]] = {"regression": Regression}

__all__ = ["OBJECTIVES", "Objective", "Regression"]
