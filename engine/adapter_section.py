"""An entry of `models.adapters`: a LoRA adapter of the model, at hand or trained by this sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from engine.errors import ConfigError
from engine.prompt_section import Section

BASE = "none"
"""Names the model itself, its adapters off."""


class AdapterConfig(Section):
    """A LoRA adapter, a factor of the sweep; written as its path, or as `none` for the base."""

    name: str | None = Field(default=None, pattern=r"^[^|/]+$")
    """Short name in tables; the last part of `path` or the `finetune` entry's name if not given."""
    path: str | None = None
    """Folder made by peft's `save_pretrained`, or hub id."""
    finetune: str | None = None
    """Name of the entry of `finetune` whose adapters these are, one a training seed."""

    @model_validator(mode="after")
    def _one_source(self) -> AdapterConfig:
        if self.is_base:
            if self.name != BASE:
                raise ValueError("give `path` or `finetune`, or write `none` for the base")
        elif self.path is not None and self.finetune is not None:
            raise ValueError("give either `path` or `finetune`")
        elif self.label == BASE:
            raise ValueError(f"{BASE!r} names the base: give the adapter another `name`")
        return self

    @property
    def is_base(self) -> bool:
        """Whether this is the model itself."""
        return self.path is None and self.finetune is None

    @property
    def label(self) -> str:
        """The adapter's name in tables; of trained ones without their seed."""
        return self.name or self.finetune or (self.path or BASE).rstrip("/").split("/")[-1]


class WantedAdapter(NamedTuple):
    """One adapter of a model, by its name in tables.

    Attributes:
        name: In the column `adapter`.
        path: Folder or hub id; None for the base and for what is still to be trained.
        finetune: Entry of `finetune` that trains it, or None.
        seed: Seed of its training, or None.
    """

    name: str
    path: str | None = None
    finetune: str | None = None
    seed: int | None = None

    @property
    def is_base(self) -> bool:
        """Whether this is the model itself."""
        return self.path is None and self.finetune is None


def wanted_adapters(
    adapters: Sequence[AdapterConfig], seeds: Mapping[str, Sequence[int]]
) -> tuple[WantedAdapter, ...]:
    """Return the adapters of a model one by one.

    Args:
        adapters: Of the model's section.
        seeds: Name of an entry of `finetune` -> its training seeds.

    Raises:
        ConfigError: Two have one name.
    """
    wanted: list[WantedAdapter] = []
    for adapter in adapters:
        if adapter.finetune is None:
            wanted.append(WantedAdapter(adapter.label, adapter.path))
            continue
        wanted += [
            WantedAdapter(f"{adapter.label}-seed{seed}", None, adapter.finetune, seed)
            for seed in seeds[adapter.finetune]
        ]
    names = [each.name for each in wanted]
    if len(set(names)) < len(names):
        raise ConfigError(f"two adapters have one name among {names}; tell them apart by `name`")
    return tuple(wanted)


def _written_short(value: object) -> object:
    if value in (None, BASE):
        return {"name": BASE}
    return {"path": value} if isinstance(value, str) else value


Adapter = Annotated[
    AdapterConfig, BeforeValidator(_written_short, json_schema_input_type=str | AdapterConfig)
]
