"""The original's files have its names and keys, and our values."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.legacy.files import write_modular, write_shap_comparison, write_xai
from analysis.load import RunTables
from analysis.tables import build_tables
from engine.errors import RunFolderError
from tests.unit.analysis.legacy_run import POSITIVE, SHAP, TEXTS, base_of, legacy_run, log_odds

FIVE = ["accuracy", "precision", "recall", "f1", "mcc"]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "trained"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "card.json", "lock"):
        (folder / name).write_text(name)
    return folder


def read(folder: Path, name: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((folder / name).read_text(encoding="utf-8"), parse_constant=refuse)


def written(write: Any, run: RunTables, folder: Path, adapter: Path | None = None) -> set[str]:
    files = write(run, build_tables(run), folder, adapter)
    assert all(file.is_file() for file in files)
    for file in files:
        if file.suffix == ".png":
            assert file.read_bytes().startswith(PNG)
    return {str(file.relative_to(folder)) for file in files}


ADAPTER = {
    f"lora_adapter/{name}"
    for name in ("adapter_config.json", "adapter_model.safetensors", "card.json")
}


class TestModular:
    def test_files(self, tmp_path: Path, adapter: Path) -> None:
        assert written(write_modular, legacy_run(), tmp_path, adapter) == {
            "modular_pipeline_results.json",
            "model_performance_comparison.png",
            "xai_properties_comparison_zero-shot.png",
            "xai_properties_comparison_fine-tuned.png",
            "ft_example_lime_0.png",
            "ft_example_lime_1.png",
            *ADAPTER,
        }

    def test_content(self, tmp_path: Path) -> None:
        written(write_modular, legacy_run(), tmp_path)
        found = read(tmp_path, "modular_pipeline_results.json")
        phases = [
            f"{phase}_{what}"
            for phase in ("zero_shot", "finetuned")
            for what in ("performance", "attributions", "bias")
        ]
        assert set(found) == {*phases, "bias_shift_report", "attribution_shift_report"}
        assert found["zero_shot_performance"] == {
            "accuracy": pytest.approx(1 / 3),
            "precision": pytest.approx(1 / 4),  # positive 1 of 2, negative 0 of 1
            "recall": pytest.approx(1 / 4),
            "f1": pytest.approx(1 / 4),
            "mcc": pytest.approx(-0.5),
        }
        assert found["finetuned_performance"] == dict.fromkeys(FIVE, 1.0)
        lime = found["zero_shot_attributions"]["LIME"]
        assert lime["F7.2_Comprehensiveness"] == pytest.approx(0.4)
        assert lime["F7.3_Sufficiency"] == pytest.approx(0.2)
        assert lime["F6.1_Fidelity"] == pytest.approx(0.5)
        assert lime["F11_Speed"] == pytest.approx(1.0)
        assert lime["F12_CrossMethodAgreement"] == pytest.approx(1.0)
        assert found["zero_shot_attributions"]["SHAP"]["F6.1_Fidelity"] is None

    def test_every_key_has_a_definition_or_a_reason(self, tmp_path: Path) -> None:
        written(write_modular, legacy_run(), tmp_path)
        for each in read(tmp_path, "modular_pipeline_results.json")[
            "zero_shot_attributions"
        ].values():
            keys = [key for key in each if key not in ("definition", "reason")]
            assert len(keys) == 13
            for key in keys:
                assert (key in each["definition"]) == (each[key] is not None)
                assert (key in each["reason"]) == (each[key] is None)

    def test_shift(self, tmp_path: Path) -> None:
        written(write_modular, legacy_run(), tmp_path)
        report = read(tmp_path, "modular_pipeline_results.json")["attribution_shift_report"]
        assert report["methods_analyzed"] == ["LIME", "SHAP"]
        assert report["num_samples"] == 3
        assert datetime.fromisoformat(report["generated_at"]).tzinfo is not None
        shap = report["method_reports"]["SHAP"]
        assert (shap["method"], shap["num_samples"]) == ("SHAP", 3)
        expected = {
            "sign_flips": [0, 0, 3],
            "sign_flip_ratio": [0, 1],  # no word of the first has a value on both sides
            "pre_attribution_mass": [1, 4, 8],
            "post_attribution_mass": [3, 8, 16],
            "mass_change_ratio": [2, 1, 1],
            "pre_prediction_prob": [0.7, 0.6, 0.2],
            "post_prediction_prob": [0.9, 0.1, 0.8],
            "prediction_change": [0.2, -0.5, 0.6],
        }
        for key, values in expected.items():
            assert shap[f"{key}_mean"] == pytest.approx(np.mean(values)), key
            assert shap[f"{key}_std"] == pytest.approx(np.std(values)), key
            assert shap["n"][key] == len(values)
        assert report["summary"] == {
            "avg_rank_correlation": report["method_reports"]["LIME"]["rank_correlation_mean"],
            "avg_top3_overlap": report["method_reports"]["LIME"]["top_3_overlap_mean"],
            "avg_prediction_improvement": pytest.approx(0.1),
        }

    def test_words_that_gain_and_lose(self, tmp_path: Path) -> None:
        """Shares of the mass: what all values are multiplied by is no change."""
        written(write_modular, legacy_run(), tmp_path)
        report = read(tmp_path, "modular_pipeline_results.json")["attribution_shift_report"]
        for each in report["method_reports"].values():
            assert each["most_gained_tokens"] == [["b", 1]]
            assert each["most_lost_tokens"] == [["a", 1]]

    def test_what_a_shift_cannot_tell_is_null_with_a_reason(self, tmp_path: Path) -> None:
        written(write_modular, legacy_run(), tmp_path)
        report = read(tmp_path, "modular_pipeline_results.json")["attribution_shift_report"]
        for each in report["method_reports"].values():
            nulls = {key for key, value in each.items() if value is None}
            assert nulls == set(each["reason"])
            assert {"rank_correlation_pval_mean", "top_5_overlap_mean"} < nulls
            assert each["n"]["top_5_overlap"] == 0  # no text has more than five words

    def test_zero_shot_alone(self, tmp_path: Path) -> None:
        names = written(write_modular, legacy_run("none"), tmp_path)
        assert "xai_properties_comparison_fine-tuned.png" not in names
        assert "ft_example_lime_0.png" not in names
        found = read(tmp_path, "modular_pipeline_results.json")
        assert not any(key.startswith("finetuned") for key in found)
        report = found["attribution_shift_report"]
        assert report["method_reports"] == {}
        assert {key for key, value in report.items() if value is None} == set(report["reason"])


class TestXai:
    def test_files_and_keys(self, tmp_path: Path, adapter: Path) -> None:
        assert written(write_xai, legacy_run(), tmp_path, adapter) == {
            "metrics_comparison.json",
            "xai_properties_results.json",
            "model_performance_comparison.png",
            "xai_properties_comparison_zero-shot.png",
            "xai_properties_comparison_fine-tuned.png",
            "ft_example_lime_0.png",
            "ft_example_lime_1.png",
            *ADAPTER,
        }
        performance = read(tmp_path, "metrics_comparison.json")
        assert {phase: list(each) for phase, each in performance.items()} == {
            "zero_shot": FIVE,
            "fine_tuned": FIVE,
        }
        properties = read(tmp_path, "xai_properties_results.json")
        for phase in ("zero_shot", "fine_tuned"):
            assert set(properties[phase]) == {"LIME", "kernelSHAP"}
            for each in properties[phase].values():
                assert len([key for key in each if key.startswith("F")]) == 24
                assert each["F7.2_ROAR"] is None

    def test_constants_of_the_original_are_null(self, tmp_path: Path) -> None:
        written(write_xai, legacy_run(), tmp_path)
        each = read(tmp_path, "xai_properties_results.json")["zero_shot"]["LIME"]
        for key in ("F1.2_Portability", "F2.1_Expressive_Power", "F8.1_Reality_Check"):
            assert each[key] is None
            assert each["reason"][key]


class TestShapComparison:
    def test_files(self, tmp_path: Path, adapter: Path) -> None:
        assert written(write_shap_comparison, legacy_run(), tmp_path, adapter) == {
            "zero_shot_metrics.json",
            "fine_tuned_metrics.json",
            "metrics_comparison.png",
            "zero_shot_shap.json",
            "fine_tuned_shap.json",
            "zero_shot_shap_summary.png",
            "fine_tuned_shap_summary.png",
            "interpretability_metrics.json",
            *ADAPTER,
        }

    def test_metrics(self, tmp_path: Path) -> None:
        written(write_shap_comparison, legacy_run(), tmp_path)
        found = read(tmp_path, "zero_shot_metrics.json")
        assert found["confusion_matrix"] == [[0, 1], [1, 1]]
        assert found["per_class"]["label1"]["support"] == 2
        assert found["mean_max_probability"] == pytest.approx((0.7 + 0.6 + 0.8) / 3)
        assert found["positive_probability_mean"] == pytest.approx((0.7 + 0.6 + 0.2) / 3)
        assert found["n"] == 3
        assert set(FIVE) < set(found)

    def test_values_are_word_by_word_and_label_by_label(self, tmp_path: Path) -> None:
        written(write_shap_comparison, legacy_run(), tmp_path)
        found = read(tmp_path, "fine_tuned_shap.json")
        assert found["examples"] == list(TEXTS)
        assert found["data"] == [text.split() for text in TEXTS.values()]
        for name, values in zip(found["examples"], found["values"], strict=True):
            assert np.array(values)[:, 1].tolist() == SHAP["lora-seed42"][name]
            assert np.array(values)[:, 0].tolist() == [-v for v in SHAP["lora-seed42"][name]]

    def test_bases(self, tmp_path: Path) -> None:
        """Of both labels, and base + Σ values is the prediction, as in shap.Explanation."""
        written(write_shap_comparison, legacy_run(), tmp_path)
        for phase, name in (("zero_shot", "none"), ("fine_tuned", "lora-seed42")):
            found = read(tmp_path, f"{phase}_shap.json")
            for i, example in enumerate(TEXTS):
                base = base_of(name, example)
                assert found["base_values"][i] == pytest.approx([-base, base])
                odds = log_odds(POSITIVE[name][example])
                sums = np.array(found["base_values"][i]) + np.sum(found["values"][i], axis=0)
                assert sums == pytest.approx([-odds, odds])

    def test_statistics(self, tmp_path: Path) -> None:
        written(write_shap_comparison, legacy_run(), tmp_path)
        found = read(tmp_path, "interpretability_metrics.json")
        assert set(found) == {"zero_shot", "fine_tuned", "comparison"}
        assert found["zero_shot"]["top_tokens"][0] == "a"
        assert found["comparison"]["pairs"] == 3

    def test_without_shap(self, tmp_path: Path) -> None:
        run = legacy_run()
        bare = replace(run, attributions=run.attributions.clear(), metrics=run.metrics.clear())
        assert written(write_shap_comparison, bare, tmp_path) == {
            "zero_shot_metrics.json",
            "fine_tuned_metrics.json",
            "metrics_comparison.png",
        }


def test_a_raised_budget_is_told(tmp_path: Path) -> None:
    run = legacy_run()
    tables = build_tables(run)
    note = {"kernel_shap": "num_samples is 16, not the 4 asked for"}
    write_shap_comparison(run, tables, tmp_path, None, note)
    write_xai(run, tables, tmp_path, None, note)
    comparison = read(tmp_path, "interpretability_metrics.json")["comparison"]
    for each in (read(tmp_path, "zero_shot_shap.json"), comparison):
        assert each["definition"]["budget"] == note["kernel_shap"]
    methods = read(tmp_path, "xai_properties_results.json")["fine_tuned"]
    assert methods["kernelSHAP"]["definition"]["budget"] == note["kernel_shap"]
    assert "budget" not in methods["LIME"]["definition"]


def test_nothing_to_export(tmp_path: Path) -> None:
    run = legacy_run()
    empty = replace(run, predictions=run.predictions.clear())
    with pytest.raises(RunFolderError, match="nothing was predicted"):
        write_xai(empty, build_tables(run), tmp_path, None)


def test_runs_of_more_than_the_original_knew_are_refused(tmp_path: Path) -> None:
    run = legacy_run()
    for column, value, said in (
        ("model", "other", "one model"),
        ("adapter", "lora-seed7", "one fine-tuned model"),
    ):
        more = run.predictions.with_columns(pl.lit(value).alias(column))
        both = replace(run, predictions=pl.concat([run.predictions, more]))
        with pytest.raises(RunFolderError, match=said):
            write_xai(both, build_tables(run), tmp_path, None)
