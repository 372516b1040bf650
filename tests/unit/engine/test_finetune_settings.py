from __future__ import annotations

from typing import Any

import pytest

from engine.config import SweepConfig, parse_config
from engine.errors import ConfigError
from engine.finetune_settings import training_prompt
from tests.unit.fake_sweep import LABELS, TEMPLATE, raw_sweep, sweep

PROMPTS = [
    {"name": name, "template": TEMPLATE, "labels": dict(LABELS)} for name in ("first", "second")
]


def entry(**fields: Any) -> dict[str, Any]:
    return {"name": "t", "data": "train.jsonl", **fields}


def several(**fields: Any) -> SweepConfig:
    raw = raw_sweep("occlusion", prompts=PROMPTS, finetune=[entry(**fields)])
    del raw["prompt"]
    return parse_config(raw)


def test_the_only_prompt_is_trained_with() -> None:
    config = sweep("occlusion", finetune=[entry()])
    assert training_prompt(config, config.finetune[0]) == (0, config.prompts[0])


def test_of_several_prompts_one_is_named() -> None:
    config = several(prompt="second")
    assert training_prompt(config, config.finetune[0]) == (1, config.prompts[1])
    with pytest.raises(ConfigError, match="of first, second"):
        several()
    with pytest.raises(ConfigError, match=r"no prompt 'third', but first, second"):
        several(prompt="third")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"data": {"path": "x", "label_names": ["bad", "good"]}}, "no label 'bad'"),
        ({"data": {"path": "x", "inputs": {"sentence": "s"}}}, "'sentence' is none of the sweep's"),
        ({"validation": {"path": "x", "inputs": {"s": "s"}}}, r"finetune\.t\.validation\.inputs"),
    ],
)
def test_labels_and_inputs_are_the_sweep_s(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        sweep("occlusion", finetune=[entry(**fields)])


def test_continuations_have_no_label_to_train_on() -> None:
    prompt = {"template": TEMPLATE, "task": "generation"}
    models = [{"path": "some/model"}]
    with pytest.raises(ConfigError, match="task generation has none"):
        sweep({"name": "occlusion"}, models=models, prompt=prompt, finetune=[entry()])


def test_one_label_is_none_to_learn() -> None:
    one = {"name": "occlusion", "target": "logprob"}
    with pytest.raises(ConfigError, match="at least two labels"):
        sweep(one, prompt__labels={"positive": " positive"}, finetune=[entry()])
