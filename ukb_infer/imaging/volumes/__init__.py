"""Fused volumes and pictures, exported for other programs."""
