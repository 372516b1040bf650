"""The section `data` of a sweep: where the examples are and which column is what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engine.prompt_section import Section, shorthand
from engine.types import RationaleKind


class DataConfig(Section):
    """The examples: where they are and which column is what."""

    name: str | None = None
    """Short name in tables; made from `path` if not given."""
    path: str
    """`bundled:reviews`, a .jsonl, .json, .csv or .parquet file (also .gz), or a Hugging Face data
    set such as `stanfordnlp/sst2`."""
    subset: str | None = None
    """Configuration name of a Hugging Face data set."""
    split: str | None = None
    """Split of a Hugging Face data set."""
    inputs: dict[str, str | list[str]] = Field(
        default_factory=lambda: dict[str, str | list[str]](text="text")
    )
    """Prompt variable: column, or several columns of which the first that exists is taken."""
    label: str | None = "label"
    """Column of the gold label, an integer or a name; null if there is none. Not read with `task:
    generation`."""
    label_names: list[str] | None = None
    """Names of the integer labels in order, all of them labels of the prompt; by default the
    prompt's order."""
    other_labels: Literal["fail", "skip"] = "fail"
    """A row whose label is none of the prompt's: a failure that is reported, or left out and
    counted, as where only some labels of a data set are studied."""
    id: str | None = None
    """Column of the example's id; made from file name and row if not given."""
    group: str | None = None
    """Column whose rows are resampled together by the bootstrap."""
    rationale: str | None = None
    """Column of evidence spans: {field: [[start, end], …]} or [[start, end], …]."""
    rationale_kind: RationaleKind = "human"
    """Who marked the evidence."""
    limit: int | None = Field(default=None, ge=1)
    """How many examples to take, sampled by the run's seed; all if not given."""
    explain_limit: int | None = Field(default=None, ge=0)
    """How many of them to explain, sampled by the run's seed, the same of every model; the others
    are predicted only. All if not given."""

    @property
    def table_name(self) -> str:
        """The data set's name in tables."""
        if self.name:
            return self.name
        base = self.path.split(":")[-1].rstrip("/").split("/")[-1]
        for ending in (".gz", ".jsonl", ".json", ".csv", ".parquet"):
            base = base.removesuffix(ending)
        return base


Data = Annotated[DataConfig, shorthand("path", DataConfig)]
