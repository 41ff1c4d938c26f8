"""Pretraining without labels: images to an encoder."""
