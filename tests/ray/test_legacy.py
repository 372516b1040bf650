"""The example commands of the original's README, on a tiny model in 4 bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jobs import run_pipeline_modular, shap_comparison, xai
from tests.models.trainings import save_tiny, write_rows

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("local_ray")]

SMALL = ("--set", "cluster.threads=1", "--num-samples", "16")
LEARNING = ("--set", "finetune.0.learning_rate=0.03", "--set", "finetune.0.targets=all-linear")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), hidden=64, window=512)


@pytest.fixture
def common(model: Path, tmp_path: Path) -> list[str]:
    train = write_rows(tmp_path / "train.jsonl", 60)
    evaluated = write_rows(tmp_path / "dev.jsonl", 12, start=60)
    return [
        *("--model-name", str(model)),
        *("--output-dir", str(tmp_path / "out")),
        *("--train-data", str(train)),
        *("--eval-data", str(evaluated)),
        *("--set", f"run.store={tmp_path / 'store'}"),
    ]


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if file.name != "run"}


def test_full_pipeline(common: list[str], tmp_path: Path) -> None:
    command = ["--train-size", "40", "--eval-sample-size", "5", "--epochs", "1.0"]
    command += ["--finetune", "--load-in-4bit", "--run-xai"]
    assert run_pipeline_modular.main([*command, *common, *SMALL, *LEARNING]) == 0
    out = tmp_path / "out"
    assert names(out) == {
        "modular_pipeline_results.json",
        "model_performance_comparison.png",
        "xai_properties_comparison_zero-shot.png",
        "xai_properties_comparison_fine-tuned.png",
        "ft_example_lime_0.png",
        "ft_example_lime_1.png",
        "lora_adapter",
    }
    found = json.loads((out / "modular_pipeline_results.json").read_text(encoding="utf-8"))
    methods = ["LIME", "SHAP", "IntegratedGradients", "Occlusion"]
    for phase in ("zero_shot", "finetuned"):
        assert list(found[f"{phase}_attributions"]) == methods
    assert found["attribution_shift_report"]["num_samples"] == 5
    assert names(out / "lora_adapter") == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "card.json",
    }
    record = json.loads((out / "run" / "run.json").read_text(encoding="utf-8"))
    assert [host["precision"] for host in record["hosts"].values()] == ["nf4"]


def test_zero_shot_only(common: list[str], tmp_path: Path) -> None:
    command = ["--train-size", "0", "--eval-sample-size", "3", "--epochs", "1.0"]
    command += ["--load-in-4bit", "--run-xai", "--no-finetune"]
    assert run_pipeline_modular.main([*command, *common, *SMALL]) == 0
    found = json.loads(
        (tmp_path / "out" / "modular_pipeline_results.json").read_text(encoding="utf-8")
    )
    assert "finetuned_performance" not in found
    assert not (tmp_path / "out" / "lora_adapter").exists()


def test_quick_diagnostic(common: list[str], tmp_path: Path) -> None:
    assert run_pipeline_modular.main(["--no-finetune", "--no-run-xai", *common]) == 0
    assert names(tmp_path / "out") == {
        "modular_pipeline_results.json",
        "model_performance_comparison.png",
    }


def test_xai(common: list[str], tmp_path: Path) -> None:
    command = ["--train-size", "40", "--eval-sample-size", "4", "--no-load-in-4bit"]
    assert xai.main([*command, *common, *SMALL, *LEARNING]) == 0
    assert names(tmp_path / "out") == {
        "metrics_comparison.json",
        "xai_properties_results.json",
        "model_performance_comparison.png",
        "xai_properties_comparison_zero-shot.png",
        "xai_properties_comparison_fine-tuned.png",
        "ft_example_lime_0.png",
        "ft_example_lime_1.png",
        "lora_adapter",
    }


def test_shap_comparison(common: list[str], tmp_path: Path) -> None:
    command = ["--finetune", "--train-subset", "40", "--eval-subset", "None"]
    command += ["--shap-example-count", "4", "--shap-max-evals", "3", "--no-load-in-4bit"]
    assert shap_comparison.main([*command, *common, *LEARNING, "--set", "cluster.threads=1"]) == 0
    assert names(tmp_path / "out") == {
        "zero_shot_metrics.json",
        "fine_tuned_metrics.json",
        "metrics_comparison.png",
        "zero_shot_shap.json",
        "fine_tuned_shap.json",
        "zero_shot_shap_summary.png",
        "fine_tuned_shap_summary.png",
        "interpretability_metrics.json",
        "lora_adapter",
    }
    shap = json.loads((tmp_path / "out" / "zero_shot_shap.json").read_text(encoding="utf-8"))
    assert len(shap["examples"]) == 4  # three evaluations are too few for any
    assert "not the 3 asked for" in shap["definition"]["budget"]
    for base, values in zip(shap["base_values"], shap["values"], strict=True):
        assert sum(base) == pytest.approx(1)  # probabilities of two labels
        assert np.sum([base, *values]) == pytest.approx(1)
