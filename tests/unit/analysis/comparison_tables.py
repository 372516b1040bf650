"""The comparison tables of a small study, for the tests of its figure and its report."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import polars as pl

from analysis.tables import build_tables
from tests.unit.analysis.frames import attribution, prediction, run_of
from tests.unit.fake_sweep import sweep

N = 12
LEVELS = {  # precision, adapter: how far its attributions lie from the base's
    ("fp32", "none"): 0.0,
    ("fp32", "sst-seed0"): 2.0,
    ("fp32", "sst-seed1"): 2.1,
    ("nf4", "none"): 0.3,
}
LIME = {"name": "lime", "num_samples": 64}


@cache
def study(*explainers: str, refused: int = 0) -> dict[str, pl.DataFrame]:
    """Tables of a base, two trainings of an adapter and a quantized base, with `explainers`.

    `lime.1` is lime with another seed. The first `refused` examples of nf4 have other spans.
    """
    rng = np.random.default_rng(0)
    truth, way, own = rng.normal(size=(3, N, 7))
    tables: dict[str, list[dict[str, Any]]] = {"predictions": [], "attributions": []}
    for (precision, adapter), shift in LEVELS.items():
        factors = {"precision": precision, "adapter": adapter}
        for i in range(N):
            right = 0.8 if i % 2 or adapter != "none" else 0.3
            name = f"e{i:02d}"
            tables["predictions"].append(prediction(name, [1 - right, right], 1, **factors))
            for explainer in explainers:
                noise = 0.2 * own[i] if explainer == "lime.1" else 0.0
                row = attribution(
                    name,
                    (truth[i] + shift * way[i] + noise).tolist(),
                    explainer=explainer,
                    **factors,
                )
                if precision == "nf4" and i < refused:
                    row["spans"] = row["spans"][::-1]
                tables["attributions"].append(row)
    config = sweep(LIME, {**LIME, "id": "lime.1", "seed": 1}, "occlusion")
    return build_tables(run_of(**tables), config)
