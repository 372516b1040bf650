from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from actors.analytic import analytic_model, closed_form
from engine.errors import ConfigError, ModelError
from jobs.explain import SAMPLES, explain_text
from tests.unit.fake_sweep import raw_sweep

TEXT = "a good film, never dull but awful"


def explained(
    capsys: pytest.CaptureFixture[str],
    text: str = TEXT,
    explainer: str = "kernel_shap",
    *,
    config: Path | None = None,
    model: str | None = "fake:linear",
    samples: int | None = None,
    overrides: tuple[str, ...] = (),
    as_json: bool = True,
) -> tuple[int, Any]:
    out = io.StringIO()
    code = explain_text(
        text,
        explainer,
        config=config,
        model=model,
        samples=samples,
        overrides=overrides,
        as_json=as_json,
        console=Console(file=out, width=100),
    )
    said = capsys.readouterr()
    if code:
        return code, said.err
    return code, json.loads(said.out) if as_json else out.getvalue()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    raw = raw_sweep("lime", models=["fake:and_or", "fake:linear"], metrics={"faithfulness": True})
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


@pytest.mark.parametrize("explainer", ["kernel_shap", "exact", "occlusion", "permutation_shap"])
def test_features_and_values(capsys: pytest.CaptureFixture[str], explainer: str) -> None:
    code, found = explained(capsys, explainer=explainer, overrides=("explainers.0.class=positive",))
    assert code == 0
    words = [TEXT[f["start"] : f["end"]] for f in found["features"]]
    assert words == [f["text"] for f in found["features"]]
    assert words == TEXT.replace(",", "").split()
    weights = closed_form(analytic_model("fake:linear"), words)
    np.testing.assert_allclose([f["value"] for f in found["features"]], weights, atol=2e-6)
    assert (found["explainer"], found["class"], found["target"]) == (
        explainer,
        "positive",
        "log_odds",
    )
    assert found["prediction"] == "negative"
    assert sum(found["probabilities"].values()) == pytest.approx(1.0)


def test_samples(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(f"word{'abcdefghijklmnop'[i]}" for i in range(16))
    assert explained(capsys, text)[1]["evaluations"] == SAMPLES
    assert explained(capsys, text, samples=64)[1]["evaluations"] == 64


@pytest.mark.parametrize("explainer", ["exact", "occlusion", "random"])
def test_samples_of_a_method_without(capsys: pytest.CaptureFixture[str], explainer: str) -> None:
    with pytest.raises(ConfigError, match=f"--samples: {explainer} has no number of samples"):
        explained(capsys, explainer=explainer, samples=9)


@pytest.mark.parametrize("samples", [None, 9])
def test_unknown_explainer(capsys: pytest.CaptureFixture[str], samples: int | None) -> None:
    with pytest.raises(ConfigError, match="unknown explainer 'limee'; did you mean 'lime'"):
        explained(capsys, explainer="limee", samples=samples)


def test_first_model_and_prompt_of_a_sweep(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    _, found = explained(capsys, "not good", "exact", config=config, model=None)
    values = [f["value"] for f in found["features"]]
    np.testing.assert_allclose(values, [1.0, 0.0], atol=2e-6)  # −2 shared, for the class negative
    _, found = explained(capsys, "not good", "exact", config=config)
    np.testing.assert_allclose([f["value"] for f in found["features"]], [0.0, 1.0], atol=2e-6)


def test_overrides_reach_what_other_options_brought(capsys: pytest.CaptureFixture[str]) -> None:
    changes = (
        "models.0.options.weights={film: 3}",
        "explainers.0.operator=mask",
        "explainers.0.replacement=film",
        "explainers.0.target=probability",
    )
    _, found = explained(capsys, "good", "occlusion", overrides=changes)
    assert (found["operator"], found["target"]) == ("mask:film", "probability")
    [value] = [f["value"] for f in found["features"]]
    assert value == pytest.approx(1 / (1 + np.exp(-1)) - 1 / (1 + np.exp(-3)), abs=1e-6)


@pytest.mark.parametrize("text", ["", "…"])
def test_nothing_to_explain(capsys: pytest.CaptureFixture[str], text: str) -> None:
    code, found = explained(capsys, text)
    assert (code, found["features"], found["base"]) == (0, [], 0.0)
    code, said = explained(capsys, text, as_json=False)
    assert code == 0
    assert said


def test_terminal_shows_text_and_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    _, said = explained(capsys, as_json=False)
    for word in TEXT.replace(",", "").split():
        assert word in said
    assert "negative" in said


@pytest.mark.parametrize(
    ("text", "samples", "said"),
    [("good " * 1000, None, "limit is 4088"), ("one two three four", 3, "num_samples = 3")],
)
def test_a_text_that_can_not_be_explained(
    capsys: pytest.CaptureFixture[str], text: str, samples: int | None, said: str
) -> None:
    code, error = explained(capsys, text, samples=samples)
    assert code == 2
    assert error.startswith("error: ")
    assert said in error
    assert len(error.splitlines()) == 1


def test_one_text_for_two_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ("data.inputs={a: a, b: b}", "prompt.template='{a} {b} ='")
    with pytest.raises(ConfigError, match=r"\['a', 'b'\]"):
        explained(capsys, overrides=changes)


def test_missing_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="gone"):
        explained(capsys, model=str(tmp_path / "gone"))
