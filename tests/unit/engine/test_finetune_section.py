from __future__ import annotations

from typing import Any

import pytest

from engine.config import FinetuneConfig, load_config, parse_config
from engine.errors import ConfigError
from tests.unit.fake_sweep import raw_sweep


def entry(**fields: Any) -> FinetuneConfig:
    raw = {"name": "t", "data": "train.jsonl", **fields}
    return parse_config(raw_sweep("occlusion", finetune=[raw])).finetune[0]


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"early_stopping": 3}, "needs `validation`"),
            ({"eval_steps": 10}, "needs `validation`"),
            ({"early_stopping": 3, "validation": 0.1, "save_steps": 5}, "set `eval_steps`"),
            ({"validation": 1.0}, "less than 1"),
            ({"validation": 0}, "greater than 0"),
            ({"seeds": [1, 1]}, "different"),
            ({"seeds": [-1]}, "from 0"),
            ({"seeds": []}, "at least 1"),
            ({"targets": []}, "at least one layer"),
            ({"data": {"path": "x.jsonl", "label": None}}, "column of the gold label"),
            ({"data": {"path": "x.jsonl", "explain_limit": 3}}, "nothing is explained"),
            ({"validation": {"path": "x.jsonl", "label": None}}, "column of the gold label"),
            ({"learning_rate": 0}, "greater than 0"),
            ({"rnak": 8}, "did you mean 'rank'"),
        ],
    )
    def test_with_the_key_and_what_to_do(self, fields: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            entry(**fields)


class TestRecipe:
    def test_has_what_changes_an_adapter_and_nothing_else(self) -> None:
        plain = entry().recipe()
        for same in (
            {"name": "other"},
            {"data": "other.jsonl"},
            {"min_words": 3},
            {"validation": 0.1},
            {"prompt": "review"},
            {"seeds": [1, 2]},
            {"save_steps": 7},
            {"gradient_checkpointing": True},
        ):
            assert entry(**same).recipe() == plain, same
        for other in (
            {"rank": 8},
            {"alpha": 8},
            {"dropout": 0.1},
            {"targets": ["q_proj"]},
            {"epochs": 2},
            {"learning_rate": 1e-4},
            {"schedule": "linear"},
            {"warmup": 10},
            {"batch_size": 8},
            {"gradient_accumulation": 2},
            {"optimizer": "adamw_8bit"},
            {"weight_decay": 0.1},
            {"max_grad_norm": 2},
            {"max_tokens": 40},
            {"early_stopping": 2, "validation": 0.1},
            {"eval_steps": 2, "validation": 0.1},
        ):
            assert entry(**other).recipe() != plain, other

    def test_every_field_is_either(self) -> None:
        """A new field must be told apart in the test above."""
        where = {"name", "data", "min_words", "validation", "prompt", "seeds"}
        where |= {"save_steps", "gradient_checkpointing"}
        assert set(FinetuneConfig.model_fields) == where | set(entry().recipe())


def test_a_path_alone_can_be_given_keys_on_the_command_line(tmp_path: Any) -> None:
    import yaml

    raw = raw_sweep("occlusion", finetune=[{"name": "t", "data": "train.jsonl"}])
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(raw), encoding="utf-8")
    config = load_config(file, ["finetune.0.data.limit=7", "finetune.0.seeds=[0,1,2]"])
    assert config.finetune[0].data.path == "train.jsonl"
    assert config.finetune[0].data.limit == 7
    assert config.finetune[0].seeds == [0, 1, 2]
