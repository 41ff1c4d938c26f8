"""Benchmarks people can run: every figure a ratio against a floor measured in the same run."""
