"""Benchmarks: what the documents' figures were measured with."""
