"""Bounds shared by the loss and the chain after the network (floor 2)."""

#: Bounds of the raw log-variance; beyond them the loss has no gradient that helps (exp(-12) is an sd of 0.0025).
LOG_VARIANCE_RANGE = (-12.0, 8.0)
