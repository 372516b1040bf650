"""Data sets: files, Hugging Face data sets and the bundled reviews, read into examples."""

from engine.data.load import example_key, load_examples, sample_examples, shown_key
from engine.data.source import DataSource, LoadedData, RowFailure

__all__ = [
    "DataSource",
    "LoadedData",
    "RowFailure",
    "example_key",
    "load_examples",
    "sample_examples",
    "shown_key",
]
