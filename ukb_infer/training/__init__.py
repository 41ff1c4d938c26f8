"""Training: labels and projections to modules."""
