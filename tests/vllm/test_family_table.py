"""What `actors.families` says of vLLM's families is what the installed vLLM says of itself."""

from __future__ import annotations

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

from actors.families import _VLLM_ADAPTERS, _VLLM_NO_ADAPTERS

registry = pytest.importorskip("vllm.model_executor.models.registry").ModelRegistry


@pytest.mark.parametrize("model_type", sorted(_VLLM_ADAPTERS | _VLLM_NO_ADAPTERS))
def test_adapters_are_served_where_the_class_takes_them(model_type: str) -> None:
    served = registry._try_load_model_cls(CLASSES[model_type])
    takes = bool(getattr(served, "supports_lora", False))
    assert takes is (model_type in _VLLM_ADAPTERS)
