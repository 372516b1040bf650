"""`xai_properties_results.json` and the attributions of `modular_pipeline_results.json`.

The originals put 13 to 24 properties F1.1 to F12 on scales of their own, many of them constants.
Here each key holds what this project measures under that name, on its own scale, or null with the
reason; `definition` tells what the number is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from analysis.legacy.phases import PhaseRows

METHODS = {
    "lime": "LIME",
    "kernel_shap": "SHAP",
    "integrated_gradients": "IntegratedGradients",
    "occlusion": "Occlusion",
}
"""Our explainers by the modular pipeline's names."""

XAI_METHODS = {"lime": "LIME", "kernel_shap": "kernelSHAP"}
"""Our explainers by the names of `llama_3.2_1B_xai.py`."""


class Source(NamedTuple):
    """Where a property's value stands.

    Attributes:
        table: Name of the tidy table.
        metric: Its metric.
        reference: Value of the column `reference`, or None where the table has none.
    """

    table: str
    metric: str
    reference: str | None = None


class Property(NamedTuple):
    """One key of the original.

    Attributes:
        key: Its name.
        source: What is measured under it, or None.
        says: What the value is, or why there is none.
    """

    key: str
    source: Source | None
    says: str


_CATEGORICAL = "a category in FUNCXAI-11, no measurement: the original wrote a constant"
_SUITE = "waits for the full metric suite"
_BIAS = "waits for the bias analysis"
_ROAR = "waits for ROAR: the original wrote a constant"

_GINI = Property(
    "F3_Selectivity",
    Source("complexity", "gini"),
    "mean Gini index of |attribution| (Hurley & Rickard 2009, × n/(n−1)), 0 to 1, higher is more "
    "selective; the original's 1 − Σp² rises with spread",
)
_DELETION = (
    Source("faithfulness", "deletion_gain", "none"),
    "gain of the deletion curve's area over a random order, predicted class; the original removed "
    "three words at once, as substrings",
)
_SPEED = Property(
    "F11_Speed",
    Source("cost", "standalone_seconds"),
    "seconds of the model an explanation takes on its own, lower is better; the original's 1 to 5 "
    "points",
)
_FIDELITY = (
    Source("faithfulness", "r2", "none"),
    "weighted R² of the local surrogate; the original compared the model with itself",
)

MODULAR = (
    Property("F1.1_Scope", None, _CATEGORICAL),
    _GINI,
    Property("F4.1_Contrastivity", None, _SUITE),
    Property("F6.1_Fidelity", *_FIDELITY),
    Property("F7.1_Deletion", *_DELETION),
    Property(
        "F7.2_Comprehensiveness",
        Source("faithfulness", "comprehensiveness", "none"),
        "ERASER's over {1, 5, 10, 20, 50} % of the words, signed, predicted class; the original "
        "clipped it and took the positive class",
    ),
    Property(
        "F7.3_Sufficiency",
        Source("faithfulness", "sufficiency", "none"),
        "ERASER's, lower is better; the original's is turned around",
    ),
    Property("F9.1_Similarity", None, _SUITE),
    Property("F9.2_Identity", None, _SUITE),
    Property("F10.1_Monotonicity", None, _SUITE),
    Property(
        "F10.2_Compactness",
        Source("complexity", "top_k_mass"),
        "share of |attribution| on the k largest, k = min(5, max(1, ⌊n/2⌋)); the original's k is 3",
    ),
    _SPEED,
    Property(
        "F12_CrossMethodAgreement",
        Source("agreement", "top_k_overlap"),
        "mean top-k overlap with the other methods at equal k, 0 to 1; the original compared five "
        "words with all",
    ),
)
"""Keys of the modular pipeline."""

XAI = (
    Property("F1.1_Scope", None, _CATEGORICAL),
    Property("F1.2_Portability", None, _CATEGORICAL),
    Property("F1.3_Access", None, _CATEGORICAL),
    Property("F1.4_Practicality", None, "the mean of F11 and a constant; see F11_Speed"),
    Property("F2.1_Expressive_Power", None, _CATEGORICAL),
    Property("F2.2_Graphical_Integrity", None, _CATEGORICAL),
    Property("F2.3_Morphological_Clarity", None, _CATEGORICAL),
    Property("F2.4_Layer_Separation", None, _CATEGORICAL),
    _GINI,
    Property("F4.1_Contrastivity_Level", None, _SUITE),
    Property("F4.2_Target_Sensitivity", None, _SUITE),
    Property("F5.1_Interaction_Level", None, _CATEGORICAL),
    Property("F5.2_Controllability", None, _CATEGORICAL),
    Property("F6.1_Fidelity_Check", *_FIDELITY),
    Property("F6.2_Surrogate_Agreement", None, "the same number as F6.1 in the original"),
    Property("F7.1_Incremental_Deletion", *_DELETION),
    Property("F7.2_ROAR", None, _ROAR),
    Property("F7.3_White_Box_Check", None, _SUITE),
    Property("F8.1_Reality_Check", None, _SUITE),
    Property("F8.2_Bias_Detection", None, _BIAS),
    Property("F9.1_Similarity", None, _SUITE),
    Property("F9.2_Identity", None, _SUITE),
    Property("F10_Uncertainty", None, _SUITE),
    _SPEED,
)
"""Keys of `llama_3.2_1B_xai.py`."""


def property_scores(
    tables: Mapping[str, pl.DataFrame],
    phase: PhaseRows,
    explainer: str,
    properties: Sequence[Property],
) -> dict[str, Any]:
    """Return key -> value of one explainer, `definition` and `reason` beside them.

    `definition`: key -> what the value is. `reason`: key -> why it is null.
    """
    values: dict[str, float | None] = {}
    definition: dict[str, str] = {}
    reason: dict[str, str] = {}
    for each in properties:
        value = None if each.source is None else _mean(tables, phase, explainer, each.source)
        values[each.key] = value
        if each.source is None:
            reason[each.key] = each.says
        elif value is None:
            reason[each.key] = f"nothing to measure here ({each.says})"
        else:
            definition[each.key] = each.says
    return {**values, "definition": definition, "reason": reason}


def _mean(
    tables: Mapping[str, pl.DataFrame], phase: PhaseRows, explainer: str, source: Source
) -> float | None:
    frame = phase.of(tables[source.table]).filter(pl.col("metric") == source.metric)
    if source.reference is not None:
        frame = frame.filter(pl.col("reference") == source.reference)
    if source.table == "agreement":
        frame = frame.filter(
            (pl.col("explainer_a") == explainer) | (pl.col("explainer_b") == explainer)
        )
    else:
        frame = frame.filter(pl.col("explainer") == explainer)
    values = frame["value"].drop_nulls()
    return float(values.mean()) if len(values) else None  # type: ignore[arg-type]
