from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from engine.errors import ConfigError
from engine.facts import ModelFacts
from engine.model_section import ModelConfig
from engine.plan import build_plan, model_key
from tests.unit.fake_sweep import examples_of, sweep


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


class TestPrecisions:
    def test_a_list_is_one_entry_each(self) -> None:
        both = {"name": "m", "path": "owner/name", "precision": ["fp32", "nf4"]}
        models = sweep("occlusion", models=[both, "other/model"]).models
        assert [(m.label, m.precision) for m in models] == [
            ("m", "fp32"),
            ("m", "nf4"),
            ("model", "fp32"),
        ]

    @pytest.mark.parametrize("precision", [[], ["fp32", "fp7"], "fp7"])
    def test_what_is_none(self, precision: object) -> None:
        with pytest.raises(ConfigError, match="precision"):
            sweep("occlusion", models=[{"path": "owner/name", "precision": precision}])

    def test_twice_the_same(self) -> None:
        with pytest.raises(ConfigError, match="stands twice"):
            sweep("occlusion", models=[{"path": "owner/name", "precision": ["nf4", "nf4"]}])

    def test_each_has_evaluations_of_its_own(self) -> None:
        entries = [
            {"path": "owner/name", "precision": ["fp32", "nf4"]},
            {"path": "owner/name", "precision": "fp4", "double_quant": False},
            {"path": "owner/name", "replicate": 1},
        ]
        config = sweep("occlusion", models=entries)
        facts = {model_key(m): ModelFacts("weights", "bytes", 4096) for m in config.models}
        pairs = build_plan(config, examples_of(["good"]), facts, "store").pairs.values()
        assert len({pair.evaluation_fingerprint for pair in pairs}) == 4
        [plain, other] = [
            next(iter(build_plan(c, examples_of(["good"]), facts, "store").pairs.values()))
            for c in (
                sweep("occlusion", models=[{**entries[1], "name": "name"}]),
                sweep("occlusion", models=[{**entries[1], "name": "name", "double_quant": True}]),
            )
        ]
        assert plain.evaluation_fingerprint != other.evaluation_fingerprint


class TestReplicates:
    def test_have_a_name_of_their_own(self) -> None:
        assert model(name="m", replicate=2).label == "m#2"
        assert model(name="m").label == "m"

    @pytest.mark.parametrize("fields", [{"backend": "vllm"}, {"path": "fake:linear"}])
    def test_where_nothing_is_cut(self, fields: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match="only backend transformers"):
            model(replicate=1, **fields)
