from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from engine.model_section import ModelConfig


def model(**fields: Any) -> ModelConfig:
    return ModelConfig.model_validate({"path": "owner/name", **fields})


@pytest.mark.parametrize("precision", ["auto", "fp32", "fp16", "bf16"])
def test_precisions_that_vllm_has(precision: str) -> None:
    assert model(backend="vllm", precision=precision).precision == precision


@pytest.mark.parametrize("precision", ["nf4", "fp4", "int8"])
def test_precisions_that_it_does_not(precision: str) -> None:
    with pytest.raises(ValidationError, match=precision):
        model(backend="vllm", precision=precision)


def test_analytic_models_are_not_served_by_vllm() -> None:
    with pytest.raises(ValidationError, match="does not go with backend 'vllm'"):
        model(path="fake:linear", backend="vllm")


def test_only_vllm_spreads_a_model() -> None:
    assert model(backend="vllm", options={"tensor_parallel": 4}).tensor_parallel == 4
    assert model(backend="vllm").tensor_parallel == 1
    assert model().tensor_parallel == 1
