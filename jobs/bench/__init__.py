"""Benchmarks against what users run today; each module has a `run` that returns its figures."""
