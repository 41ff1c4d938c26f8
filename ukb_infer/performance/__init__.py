"""Benchmarks people can run: every figure a ratio against a floor measured in the same run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ukb_infer.lazy import on_first_use

if TYPE_CHECKING:
    from ukb_infer.performance.bench import BenchConfig, run_benchmarks

__all__ = ["BenchConfig", "run_benchmarks"]
__getattr__ = on_first_use(__name__, dict.fromkeys(__all__, "bench"))
