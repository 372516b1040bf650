"""The section `finetune` of a sweep: adapters that are trained before anything is explained."""

from __future__ import annotations

from pydantic import Field, field_validator

from engine.data_section import Data
from engine.prompt_section import Section


class FinetuneConfig(Section):
    """A fine-tuning: LoRA adapters of each model that names it, one a seed."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What `models.adapters` call it; the adapters are NAME-seed0, …"""
    data: Data
    """The training examples."""
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1)
    """Seeds of the training, one adapter each: of its first weights, the order of examples,
    dropout."""

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value) or min(value) < 0:
            raise ValueError("seeds are different whole numbers from 0")
        return value
