"""How a head's second output becomes a log-variance: one rule for the loss and for inference.

``bounded``, which training uses::

    z = (raw - CENTRE) / HALF_RANGE
    s = CENTRE + HALF_RANGE * z / sqrt(1 + z^2)

It is smooth and rises strictly from -12 to 8; near 0 it is close to the identity (0 becomes -0.04). Its slope
``(1 + z^2)^(-3/2)`` falls off as a power, where a clamp's is 0 and that of tanh underflows: an output that has run away
is always pulled back. The standardized sd is therefore between exp(-6) = 0.0025 and exp(4) = 55.

``plain`` is the published ``s = raw``, for imported weights and for modules made before ``bounded`` existed.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

LogVariance = Literal["plain", "bounded"]
LOG_VARIANCES: tuple[LogVariance, ...] = get_args(LogVariance)
#: Middle and half of the range (-12, 8) of a bounded log-variance.
CENTRE, HALF_RANGE = -2.0, 10.0
#: A plain log-variance is held within this range, beyond which exp() overflows or vanishes.
PLAIN_LIMIT = 80.0


def bounded_log_variance(raw: NDArray[np.floating]) -> NDArray[np.float64]:
    """Bounded log-variance of raw outputs; NaN stays NaN.

    Args:
        raw: any shape.

    Returns:
        float64 of the same shape, within (-12, 8).
    """
    z = (raw.astype(np.float64) - CENTRE) / HALF_RANGE
    return np.asarray(CENTRE + HALF_RANGE * z / np.sqrt(1.0 + np.square(z)))


def variance_from_raw(raw: NDArray[np.floating], kind: LogVariance = "plain") -> NDArray[np.float64]:
    """Variance of raw head outputs, standardized units squared.

    Args:
        raw: any shape.
        kind: the rule the network was trained with.

    Returns:
        float64 of the same shape; NaN where the raw output is NaN or infinite, never an invented number.
    """
    finite = np.isfinite(raw)
    safe = np.where(finite, raw, 0.0)
    log_variance = bounded_log_variance(safe) if kind == "bounded" else safe.astype(np.float64)
    return np.where(finite, np.exp(np.clip(log_variance, -PLAIN_LIMIT, PLAIN_LIMIT)), np.nan)
