"""Benchmarks people can run: every figure a ratio against a floor measured in the same run (floor 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ukb_infer.benchmark.suite import BenchConfig, run_benchmarks

__all__ = ["BenchConfig", "run_benchmarks"]


def __getattr__(name: str) -> Any:
    """Import on first use: ``--help`` needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module 'ukb_infer.benchmark' has no attribute {name!r}")
    from ukb_infer.benchmark import suite

    return getattr(suite, name)
