"""Anomalies of phantoms that limits on measures find, and limits that need no run around a scan."""

from __future__ import annotations

from ukb_infer.reasons import Reason

FINDABLE = (
    Reason.LOW_SIGNAL_TO_NOISE,
    Reason.SATURATED,
    Reason.EMPTY_SLICES,
    Reason.SEAM_MISMATCH,
    Reason.FOLDING,
    Reason.MOTION,
    Reason.METAL,
    Reason.KNEE_MISSING,
    Reason.SHOULDER_MISSING,
    Reason.TRUNK_CUT,
    Reason.OFF_CENTRE,
    Reason.OTHER_PROTOCOL,
    Reason.LONG_PAUSE,
)
PHYSICAL = """
[low_signal_to_noise]
below = 15.0
[seam_mismatch]
above = 0.45
[folding]
above = 0.5
[motion]
above = 1.15
[metal]
above = 60.0
[trunk_cut]
level = "note"
"""
