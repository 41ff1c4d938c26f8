"""Fused volumes: written for other programs."""
