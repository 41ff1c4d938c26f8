"""The linear head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RowLinear(nn.Linear):
    """A linear layer whose result for a scan does not depend on the other scans of the batch.

    On a CPU in evaluation it works row by row: in a matrix product over the whole batch, rounding depends on the row's
    place in the batch (measured with 2 threads: batches of 5 and 7, 144 outputs). It computes in the precision of its
    weights also under autocast: an output rounded to bfloat16 would be off by up to 0.4 %, more than the rest of the
    network costs.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(N, features) -> (N, outputs)."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(self.weight.dtype)
            if self.training or features.device.type != "cpu" or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
                return super().forward(features)
            rows = [functional.linear(row, self.weight, self.bias) for row in features.unsqueeze(1).unbind()]
            return torch.cat(rows) if rows else features.new_empty((0, self.out_features))
