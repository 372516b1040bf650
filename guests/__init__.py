"""Explainers of other libraries as guests, one a module; `engine.guests` runs them.

Each has a function `explain`. One that splits and masks the text by itself is called with (text,
predict, labels, …) and says by `game` what it explains; one over our features with (n_features,
value, labels, …). The libraries are imported when an explanation begins, not before.
"""
