"""A run's rows as the original's two phases: the model as it is, and fine-tuned."""

from __future__ import annotations

from typing import Literal, NamedTuple

import polars as pl

from analysis.load import RunTables
from engine.adapter_section import BASE
from engine.errors import RunFolderError

Phase = Literal["zero_shot", "fine_tuned"]


class PhaseRows(NamedTuple):
    """What a phase's rows have in common.

    Attributes:
        phase: Which.
        adapter: Name of its adapter, `none` before fine-tuning.
    """

    phase: Phase
    adapter: str

    def of(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the phase's rows of a table."""
        return frame.filter(pl.col("adapter") == self.adapter)


def phases(run: RunTables) -> list[PhaseRows]:
    """Return the phases that a run has, zero-shot first.

    Raises:
        RunFolderError: The run is of several models, precisions, prompts or data sets, or of
            several adapters: it is no run of the original's kind. Or nothing was predicted.
    """
    if not len(run.predictions):
        raise RunFolderError("nothing was predicted, so that there is nothing to export")
    for factor in ("data", "model", "precision", "prompt"):
        found = run.predictions[factor].unique().sort().to_list()
        if len(found) > 1:
            raise RunFolderError(
                f"the original's files hold one {factor}, but the run has {found}; export from a "
                "run of one"
            )
    adapters = run.predictions["adapter"].unique().sort().to_list()
    tuned = [name for name in adapters if name != BASE]
    if len(tuned) > 1:
        raise RunFolderError(
            f"the original's files hold one fine-tuned model, but the run has {tuned}; export from "
            "a run of one training seed"
        )
    found = [PhaseRows("zero_shot", BASE)] if BASE in adapters else []
    return [*found, *(PhaseRows("fine_tuned", name) for name in tuned)]
