"""Benchmarks: what the engine and its models cost, measured on the machine at hand."""
