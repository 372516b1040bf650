from __future__ import annotations

import pytest

from engine.adapter_section import WantedAdapter
from engine.errors import ConfigError
from tests.unit.fake_sweep import sweep

MODEL = {"name": "m", "path": "some/model"}
TRAINED = [{"name": "lora", "data": "train.jsonl", "seeds": [0, 3]}]


def wanted(*adapters: object, finetune: object = TRAINED) -> tuple[WantedAdapter, ...]:
    config = sweep("occlusion", models=[{**MODEL, "adapters": list(adapters)}], finetune=finetune)
    return config.wanted_adapters(config.models[0])


def test_a_model_without_adapters_is_the_base() -> None:
    config = sweep("occlusion", models=[MODEL])
    assert config.wanted_adapters(config.models[0]) == (WantedAdapter("none"),)


def test_trained_adapters_are_one_a_seed_and_a_folder_has_its_name() -> None:
    assert wanted("none", "runs/x/tuned", {"finetune": "lora"}) == (
        WantedAdapter("none"),
        WantedAdapter("tuned", "runs/x/tuned"),
        WantedAdapter("lora-seed0", None, "lora", 0),
        WantedAdapter("lora-seed3", None, "lora", 3),
    )


def test_a_name_of_its_own() -> None:
    assert [each.name for each in wanted({"name": "ours", "finetune": "lora"})] == [
        "ours-seed0",
        "ours-seed3",
    ]


@pytest.mark.parametrize(
    ("adapters", "said"),
    [
        ([{"finetune": "loar"}], "did you mean 'lora'"),
        ([{"name": "x"}], "`path` or `finetune`"),
        ([{"path": "a", "finetune": "lora"}], "either"),
        ([{"name": "none", "path": "a"}], "names the base"),
        (["runs/a/x", "runs/b/x"], "stands twice"),
        (["runs/lora-seed0", {"finetune": "lora"}], "one name"),
        ([], "at least 1"),
    ],
)
def test_what_is_refused(adapters: list[object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        wanted(*adapters)


def test_the_fake_models_take_none() -> None:
    with pytest.raises(ConfigError, match="fake models take none"):
        sweep("occlusion", models=[{"path": "fake:linear", "adapters": ["runs/x"]}])
