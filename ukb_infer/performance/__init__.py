"""Benchmarks people can run: every figure is a ratio to a floor measured in the same run."""
