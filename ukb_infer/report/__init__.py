"""Evaluation tables and figures."""
