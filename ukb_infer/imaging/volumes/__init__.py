"""Fused bodies on any grid: the grid, the stitch, its files, and label maps drawn on it."""
