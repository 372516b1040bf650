"""An entry of `models`: which model, in which precision, with which adapters, served by what."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from engine.adapter_section import BASE, Adapter, AdapterConfig
from engine.prompt_section import Section, shorthand

Precision = Literal["auto", "fp32", "bf16", "fp16", "nf4", "fp4", "int8"]


VLLM_PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class ModelConfig(Section):
    """A model, a factor of the sweep."""

    name: str | None = None
    """Short name in tables; the last part of `path` if not given."""
    path: str
    """Hub id, local folder, `fake:linear`, `fake:and_or` or `fake:planted`."""
    backend: Literal["transformers", "vllm", "fake"] | None = None
    """What serves it; by default `fake` where the path says so, else `transformers`. `vllm` has to
    be installed (`make vllm`); it knows neither gradients nor the operator `pad`."""
    precision: Precision = "fp32"
    """Number format of weights and products; `auto` takes what the device does best."""
    revision: str | None = None
    """Git revision of a hub model."""
    adapters: list[Adapter] = Field(
        default_factory=lambda: [AdapterConfig(name=BASE)], min_length=1
    )
    """LoRA adapters, a factor of the sweep: each a folder, or `finetune: NAME` for those that this
    sweep trains; `none` is the model itself. All are served by one copy of the model."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the host: `admit_tokens`, `remember`; of transformers `batch_tokens`,
    `prefix_cache`, `prepack`, `packing`; of vllm `block_size`, `gpu_memory_utilization`,
    `kv_cache_memory_bytes`, `max_loras`, `max_model_len`, `max_num_seqs`, `tensor_parallel`; the
    fake models' weights, noise and others."""

    @model_validator(mode="after")
    def _backend_fits_path(self) -> ModelConfig:
        fake = self.path.startswith("fake:")
        if self.backend is not None and fake != (self.backend == "fake"):
            raise ValueError(f"path {self.path!r} does not go with backend {self.backend!r}")
        return self

    @model_validator(mode="after")
    def _vllm_has_the_precision(self) -> ModelConfig:
        if self.backend == "vllm" and self.precision not in VLLM_PRECISIONS:
            raise ValueError(
                f"precision {self.precision!r} is bitsandbytes', which vLLM doesn't have: use "
                "backend transformers, or a ready-made AWQ or GPTQ checkpoint with `auto`"
            )
        return self

    @model_validator(mode="after")
    def _adapters_differ(self) -> ModelConfig:
        labels = [adapter.label for adapter in self.adapters]
        twice = {label for label in labels if labels.count(label) > 1}
        if twice:
            raise ValueError(f"adapters: {sorted(twice)} stands twice; tell them apart by `name`")
        if self.is_fake and not all(adapter.is_base for adapter in self.adapters):
            raise ValueError("adapters: the fake models take none")
        return self

    @property
    def label(self) -> str:
        """The model's name in tables."""
        return self.name or self.path.rstrip("/").split("/")[-1]

    @property
    def is_fake(self) -> bool:
        """Whether an analytic model answers, without torch."""
        return self.path.startswith("fake:")

    @property
    def tensor_parallel(self) -> int:
        """Number of GPUs that one copy of the model is spread over, by vLLM."""
        return int(self.options.get("tensor_parallel", 1)) if self.backend == "vllm" else 1


Model = Annotated[ModelConfig, shorthand("path", ModelConfig)]
