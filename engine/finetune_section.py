"""The section `finetune` of a sweep: adapters that are trained before anything is explained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from engine.data_section import Data, DataConfig
from engine.prompt_section import Section
from engine.scheduling import without_scheduling

SAVE_STEPS = 25
"""Optimizer steps between two checkpoints where nothing else is said."""

_NO_RECIPE = {"name", "data", "min_words", "validation", "prompt", "seeds"}
"""Fields that say what is trained on and how often; the others say how."""

Fraction = Annotated[float, Field(gt=0, lt=1)]


class FinetuneConfig(Section):
    """A fine-tuning: LoRA adapters of each model that names it, one a seed.

    The loss is that of the label's tokens behind the prompt and of nothing else; prompt and label
    tokens are those that scoring reads.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What `models.adapters` call it; the adapters are NAME-seed0, …"""
    data: Data
    """The training examples. Texts that the sweep evaluates, or the validation has, are left out
    and counted."""
    min_words: int = Field(default=1, ge=1)
    """Training examples of fewer words are left out and counted, before `data.limit` samples."""
    validation: Fraction | Data | None = None
    """Examples on which accuracy is measured while training: a fraction of the training examples,
    which are then not trained on, or data of their own."""
    prompt: str | None = None
    """Name of the prompt to train with; the sweep's only one if not given."""
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1)
    """Seeds of the training, one adapter each: of its first weights, the order of examples,
    dropout."""
    rank: int = Field(default=16, ge=1)
    """Rank r of the adapter's matrices."""
    alpha: float = Field(default=32, gt=0)
    """The adapter's product is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of the adapter's inputs."""
    targets: Literal["auto", "all-linear", "attention", "query-value"] | list[str] = "auto"
    """Layers that get an adapter: `all-linear` of the blocks, `attention`, `query-value` (what
    makes queries and values, Hu et al. 2021), or names of layers; `auto` takes all linear ones."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the training examples."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Highest learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up."""
    warmup: float = Field(default=0.05, ge=0)
    """Steps in which the learning rate rises from 0; below 1 a fraction of all steps."""
    batch_size: int = Field(default=16, ge=1)
    """Examples that go through the model at a time, of nearly one length."""
    gradient_accumulation: int = Field(default=1, ge=1)
    """Batches an optimizer step."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"] = "adamw"
    """AdamW; with its moments in 8 bits, or in pages that a GPU may move to main memory
    (bitsandbytes)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt with its label, in tokens; longer examples are left out and counted, never
    cut. The model's window if not given."""
    early_stopping: int | None = Field(default=None, ge=1)
    """Stop after so many validations without a better accuracy, and keep the adapter of the best
    one. Without it the last adapter is kept."""
    eval_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps between two validations; by default one at the end of each epoch."""
    save_steps: int | None = Field(default=None, ge=1, json_schema_extra={"scheduling": True})
    """Optimizer steps between two checkpoints, from which a training that was cut off goes on; 25
    if not given. With early stopping every validation makes one."""
    gradient_checkpointing: bool = Field(default=False, json_schema_extra={"scheduling": True})
    """Compute activations a second time in the backward pass and keep fewer: less memory, slower.
    """

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value) or min(value) < 0:
            raise ValueError("seeds are different whole numbers from 0")
        return value

    @field_validator("targets")
    @classmethod
    def _some_target(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("name at least one layer, or write all-linear")
        return value

    @model_validator(mode="after")
    def _validation_is_there(self) -> FinetuneConfig:
        if self.validation is None:
            for key in ("early_stopping", "eval_steps"):
                if getattr(self, key) is not None:
                    raise ValueError(f"`{key}` needs `validation`: a fraction, or data")
        if self.early_stopping is not None and self.save_steps is not None:
            raise ValueError("with `early_stopping` every validation is saved: set `eval_steps`")
        for key, data in (("data", self.data), ("validation", self.validation)):
            if not isinstance(data, DataConfig):
                continue
            if data.label is None:
                raise ValueError(f"{key}.label: training needs the column of the gold label")
            if data.explain_limit is not None:
                raise ValueError(f"{key}.explain_limit: nothing is explained in training")
        return self

    def recipe(self) -> dict[str, Any]:
        """Return how is trained: what changes the adapter beside model, examples and seed."""
        values = without_scheduling(self)
        return {key: value for key, value in values.items() if key not in _NO_RECIPE}
