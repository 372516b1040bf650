"""Writes the original's files into a folder, from a finished run."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from analysis.legacy import charts
from analysis.legacy.lime_examples import lime_examples
from analysis.legacy.performance import metrics_file, scores
from analysis.legacy.phases import PhaseRows, phases
from analysis.legacy.properties import (
    METHODS,
    MODULAR,
    XAI,
    XAI_METHODS,
    Property,
    property_scores,
)
from analysis.legacy.shap_files import feature_texts, magnitudes, shap_file
from analysis.legacy.shap_statistics import comparison, phase_statistics
from analysis.legacy.shift_report import shift_report
from analysis.load import RunTables

BIAS = {"value": None, "reason": "waits for the bias analysis"}
SHAP = "kernel_shap"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "card.json")
"""What makes a trained adapter; its folder has the training's lock and checkpoints too."""
_PHASE_KEY = {"zero_shot": "zero_shot", "fine_tuned": "finetuned"}
"""The modular pipeline writes fine-tuned as one word."""


def write_modular(
    run: RunTables,
    tables: dict[str, pl.DataFrame],
    folder: Path,
    adapter: Path | None,
    budgets: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write the files of `run_pipeline_modular.py`; return them.

    `budgets` has a note on an explainer whose budget is not the one asked for.

    `modular_pipeline_results.json`, `model_performance_comparison.png`,
    `xai_properties_comparison_zero-shot.png` and `…_fine-tuned.png`, `ft_example_lime_0.png` and
    `…_1.png`, `lora_adapter/`.
    """
    found = phases(run)
    result: dict[str, Any] = {}
    written = []
    for phase in found:
        key = _PHASE_KEY[phase.phase]
        result[f"{key}_performance"] = scores(tables, phase)
        methods = _properties(run, tables, phase, METHODS, MODULAR, budgets)
        if methods:
            result[f"{key}_attributions"] = methods
            written.append(_properties_chart(methods, phase, folder))
        result[f"{key}_bias"] = BIAS
    result["bias_shift_report"] = BIAS
    result["attribution_shift_report"] = shift_report(run, tables, found)
    written.append(_write(result, folder / "modular_pipeline_results.json"))
    written.append(_performance_chart(tables, found, folder / "model_performance_comparison.png"))
    return [*written, *_lime_charts(run, found, folder), *_adapter(adapter, folder)]


def write_xai(
    run: RunTables,
    tables: dict[str, pl.DataFrame],
    folder: Path,
    adapter: Path | None,
    budgets: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write the files of `llama_3.2_1B_xai.py`; return them.

    `budgets` has a note on an explainer whose budget is not the one asked for.

    `metrics_comparison.json`, `xai_properties_results.json`, `model_performance_comparison.png`,
    `xai_properties_comparison_*.png`, `ft_example_lime_*.png`, `lora_adapter/`.
    """
    found = phases(run)
    performance: dict[str, Any] = {phase.phase: scores(tables, phase) for phase in found}
    written = [_write(performance, folder / "metrics_comparison.json")]
    properties: dict[str, Any] = {}
    for phase in found:
        methods = _properties(run, tables, phase, XAI_METHODS, XAI, budgets)
        if methods:
            properties[phase.phase] = methods
            written.append(_properties_chart(methods, phase, folder))
    if properties:
        written.append(_write(properties, folder / "xai_properties_results.json"))
    written.append(_performance_chart(tables, found, folder / "model_performance_comparison.png"))
    return [*written, *_lime_charts(run, found, folder), *_adapter(adapter, folder)]


def write_shap_comparison(
    run: RunTables,
    tables: dict[str, pl.DataFrame],
    folder: Path,
    adapter: Path | None,
    budgets: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write the files of `experiments_llama_3.2_1B.py`; return them.

    `budgets` has a note on an explainer whose budget is not the one asked for.

    `zero_shot_metrics.json`, `fine_tuned_metrics.json`, `metrics_comparison.png`; with SHAP
    `zero_shot_shap.json`, `fine_tuned_shap.json`, the two `…_shap_summary.png` and
    `interpretability_metrics.json`; `lora_adapter/`.
    """
    found = phases(run)
    written = [
        _write(metrics_file(run, tables, phase), folder / f"{phase.phase}_metrics.json")
        for phase in found
    ]
    written.append(_performance_chart(tables, found, folder / "metrics_comparison.png"))
    statistics: dict[str, Any] = {}
    sizes = {}
    for phase in found:
        sizes[phase.phase] = magnitudes(run, phase, SHAP)
        if not sizes[phase.phase]:
            continue
        values = _noted(shap_file(run, phase, SHAP), SHAP, budgets)
        written.append(_write(values, folder / f"{phase.phase}_shap.json"))
        own = phase_statistics(sizes[phase.phase], _words(run, phase))
        statistics[phase.phase] = own
        picture = folder / f"{phase.phase}_shap_summary.png"
        charts.shap_summary_chart(own["top_tokens"], own["top_token_scores"], picture)
        written.append(picture)
    if len(statistics) == 2:
        compared = comparison(sizes["zero_shot"], sizes["fine_tuned"])
        statistics["comparison"] = _noted(compared, SHAP, budgets)
    if statistics:
        written.append(_write(statistics, folder / "interpretability_metrics.json"))
    return [*written, *_adapter(adapter, folder)]


def _properties(
    run: RunTables,
    tables: dict[str, pl.DataFrame],
    phase: PhaseRows,
    methods: Mapping[str, str],
    properties: tuple[Property, ...],
    budgets: Mapping[str, str] | None,
) -> dict[str, Any]:
    explained = set(phase.of(run.attributions)["explainer"].to_list())
    found = {}
    for explainer, name in methods.items():
        if explainer in explained:
            scored = property_scores(tables, phase, explainer, properties)
            found[name] = _noted(scored, explainer, budgets)
    return found


def _noted(
    content: dict[str, Any], explainer: str, budgets: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return the content with the note on the explainer's budget, if any, in its definition."""
    note = (budgets or {}).get(explainer)
    if note is None:
        return content
    return {**content, "definition": {**content["definition"], "budget": note}}


def _properties_chart(methods: Mapping[str, Any], phase: PhaseRows, folder: Path) -> Path:
    ending = phase.phase.replace("_", "-")
    path = folder / f"xai_properties_comparison_{ending}.png"
    values = {
        name: {k: v for k, v in each.items() if k not in ("definition", "reason")}
        for name, each in methods.items()
    }
    charts.properties_chart(values, phase.phase, path)
    return path


def _performance_chart(tables: dict[str, pl.DataFrame], found: list[PhaseRows], path: Path) -> Path:
    charts.performance_chart({phase.phase: scores(tables, phase) for phase in found}, path)
    return path


def _lime_charts(run: RunTables, found: list[PhaseRows], folder: Path) -> list[Path]:
    written = []
    for phase in found:
        if phase.phase == "fine_tuned":
            for i, example in enumerate(lime_examples(run, phase)):
                written.append(folder / f"ft_example_lime_{i}.png")
                charts.lime_chart(example, written[-1])
    return written


def _words(run: RunTables, phase: PhaseRows) -> dict[str, list[str]]:
    inputs = {
        row["example"]: json.loads(row["inputs"])
        for row in phase.of(run.predictions).iter_rows(named=True)
    }
    rows = phase.of(run.attributions).filter(pl.col("explainer") == SHAP)
    return {
        row["example"]: feature_texts(row["spans"], inputs[row["example"]])
        for row in rows.iter_rows(named=True)
    }


def _adapter(adapter: Path | None, folder: Path) -> list[Path]:
    if adapter is None:
        return []
    target = folder / "lora_adapter"
    target.mkdir(parents=True, exist_ok=True)
    copied = []
    for name in ADAPTER_FILES:
        copied.append(Path(shutil.copy2(adapter / name, target / name)))
    return copied


def _write(content: Mapping[str, Any], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _finite(value: Any) -> Any:
    """Return the value with null for NaN and infinities, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
