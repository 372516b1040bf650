"""An entry of `models`: which model, in which precision, with which adapters, served by what."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, WithJsonSchema, model_validator

from engine.adapter_section import BASE, Adapter, AdapterConfig
from engine.prompt_section import Section, shorthand

Precision = Literal["auto", "fp32", "bf16", "fp16", "nf4", "fp4", "int8"]

_NAMES = {"enum": list(get_args(Precision)), "type": "string"}
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
    precision: Annotated[
        Precision,
        WithJsonSchema({"anyOf": [_NAMES, {"type": "array", "items": _NAMES, "minItems": 1}]}),
    ] = "fp32"
    """Number format of weights and products, a factor of the sweep: one, or a list of them. `nf4`,
    `fp4` and `int8` quantize the linear layers by bitsandbytes, on CPUs too. `auto` is bf16 where
    the device computes in it, else fp16 on a GPU, else fp32; a checkpoint that is quantized already
    (AWQ, GPTQ) loads as it is, by `auto`."""
    double_quant: bool = True
    """Quantize the scales of `nf4` and `fp4` too."""
    replicate: int = Field(default=0, ge=0)
    """Other than 0: the same model once more, its prompts computed in batches cut elsewhere, so
    that it differs by rounding alone: the zero of a comparison's scale. By backend transformers."""
    revision: str | None = None
    """Git revision of a hub model."""
    adapters: list[Adapter] = Field(
        default_factory=lambda: [AdapterConfig(name=BASE)], min_length=1
    )
    """LoRA adapters, a factor of the sweep: each a folder, or `finetune: NAME` for those that this
    sweep trains; `none` is the model itself. All are served by one copy of the model."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the host: `admit_tokens`, `remember`; of transformers `batch_tokens`,
    `prefix_cache`, `prepack`, `packing`, `compile`, `adapters_kept`, `adapter_bytes`; of vllm
    `block_size`, `gpu_memory_utilization`, `kv_cache_memory_bytes`, `max_loras`, `max_model_len`,
    `max_num_seqs`, `tensor_parallel`; the fake models' weights, noise and others."""

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
    def _replicates_are_computed(self) -> ModelConfig:
        if self.replicate and (self.is_fake or self.backend == "vllm"):
            raise ValueError("replicate: only backend transformers cuts its batches elsewhere")
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
        name = self.name or self.path.rstrip("/").split("/")[-1]
        return f"{name}#{self.replicate}" if self.replicate else name

    @property
    def in_four_bits(self) -> bool:
        """Whether its linear layers are quantized to 4 bits, the scales of which may be too."""
        return self.precision in ("nf4", "fp4")

    @property
    def is_fake(self) -> bool:
        """Whether an analytic model answers, without torch."""
        return self.path.startswith("fake:")

    @property
    def tensor_parallel(self) -> int:
        """Number of GPUs that one copy of the model is spread over, by vLLM."""
        return int(self.options.get("tensor_parallel", 1)) if self.backend == "vllm" else 1


def one_a_precision(models: object) -> object:
    """Return the entries of `models` with each that lists precisions as one entry a precision."""
    if not isinstance(models, list):
        return models
    found: list[object] = []
    for model in models:
        several = model.get("precision") if isinstance(model, dict) else None
        if isinstance(several, list) and several:
            found += [{**model, "precision": each} for each in several]
        else:
            found.append(model)
    return found


Model = Annotated[ModelConfig, shorthand("path", ModelConfig)]
