"""What to compute: features, coalitions, explainers, metrics and the files they fill.

Needs numpy, pyarrow, pydantic and tokenizers; knows neither Ray nor any model library.
"""
