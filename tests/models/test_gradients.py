"""Gradients of tiny models: closed forms, dense integration, captum by hand, quantized layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from captum.attr import IntegratedGradients
from torch import nn
from transformers import BitsAndBytesConfig

from actors.embedded import explained
from actors.gradients import GradientRunner, tokens_of
from actors.prepacked import prepack
from engine.errors import ModelError
from engine.gradients import GradientAsk
from engine.target import transform

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("one_thread")]

VOCABULARY = 128
LABELS = ((3,), (5, 7), (5, 8, 11))
TWO = ((3,), (5,))
PROMPT = (11, 12, 20, 33, 44, 55, 66, 16, 17)
WORDS = ((2,), (3, 4), (6,))  # of positions 0..8; 5 is punctuation, the rest the template
MOVED = [2, 3, 4, 6]

ASK = GradientAsk(
    key="k",
    ids=PROMPT,
    positions=WORDS,
    method="integrated_gradients",
    steps=20,
    max_steps=320,
    baseline="mean",
    target="log_odds",
    floor=1e-3,
)

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_GEMMA = {**_GROUPED, "head_dim": 16, "sliding_window": 4}
FAMILIES = {
    "llama": (transformers.LlamaConfig, _GROUPED),
    "qwen2": (transformers.Qwen2Config, _GROUPED),
    "qwen3": (transformers.Qwen3Config, {**_GROUPED, "head_dim": 16}),
    "gemma": (transformers.GemmaConfig, {**_GROUPED, "head_dim": 16}),
    "gemma2": (transformers.Gemma2Config, {**_GEMMA, "final_logit_softcapping": 5.0}),
    "gemma3": (transformers.Gemma3TextConfig, {**_GEMMA, "sliding_window_pattern": 2}),
    "mistral": (transformers.MistralConfig, {**_GROUPED, "sliding_window": 4}),
    "falcon": (transformers.FalconConfig, {**_SIZES, "new_decoder_architecture": False}),
    "phi": (transformers.PhiConfig, _SIZES),
    "phi3": (transformers.Phi3Config, _GROUPED),
    "gpt_neox": (transformers.GPTNeoXConfig, _SIZES),
}


def build(family: str = "llama", noise: float = 0.1, **changes: Any) -> Any:
    config, fields = FAMILIES[family]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        config(**{**fields, **changes}), dtype=torch.float32
    )
    for parameter in model.parameters():  # sharper than the initial noise, to tell errors apart
        if parameter.dim() > 1:
            parameter.data.normal_(0.0, noise)
    return model.eval().requires_grad_(False)


def run(model: Any, labels: Any = LABELS, **changes: Any) -> Any:
    return GradientRunner(model, 512).run(replace(ASK, **changes), labels)


def value_by_ids(model: Any, ids: tuple[int, ...], labels: Any, **kind: Any) -> np.ndarray:
    """The explained values [L] of a prompt of token ids, a forward pass a label."""
    log_probs = []
    for label in labels:
        logits = model(input_ids=torch.tensor([ids + label])).logits[0].double()
        rows = logits.log_softmax(-1)[len(ids) - 1 :]
        log_probs.append(sum(float(rows[i, token]) for i, token in enumerate(label)))
    return transform(np.array([log_probs]), **kind)[0]


class LinearModel(nn.Module):
    """Logits are linear in the embeddings, so log-odds of two one-token labels are too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.out = nn.Linear(8, VOCABULARY, bias=False)
        pad = SimpleNamespace(pad_token_id=None)
        self.config = SimpleNamespace(get_text_config=lambda decoder: pad)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(
        self, input_ids: Any = None, inputs_embeds: Any = None, attention_mask: Any = None, **_: Any
    ) -> Any:
        x = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        weight = torch.arange(1.0, x.shape[1] + 1)[:, None]
        return SimpleNamespace(logits=self.out((x * weight).cumsum(dim=1)))


class TestClosedForm:
    @pytest.mark.parametrize("method", ["integrated_gradients", "gradient_x_input"])
    @pytest.mark.parametrize("baseline", ["zero", "mean", "mask"])
    def test_a_linear_model_has_the_products(self, method: str, baseline: Any) -> None:
        model = LinearModel()
        answer = run(model, TWO, method=method, baseline=baseline, baseline_ids=(9, 10), steps=1)
        table = model.embed.weight.detach()
        start = {"zero": 0 * table[0], "mean": table.mean(0), "mask": table[[9, 10]].mean(0)}
        by_token = {
            p: (p + 1)
            * (table[PROMPT[p]] - start[baseline])
            @ (model.out.weight[3] - model.out.weight[5]).detach()
            for p in MOVED
        }
        expected = [float(sum(by_token[p] for p in word)) for word in WORDS]
        np.testing.assert_allclose(answer.values, [expected, np.negative(expected)], rtol=1e-4)
        np.testing.assert_allclose(answer.full - answer.base, answer.values.sum(1), rtol=1e-4)
        assert (answer.steps, answer.converged) == (1, True)

    def test_occlusion_of_a_linear_model_from_zero_gives_the_products_again(self) -> None:
        found = run(LinearModel(), TWO, method="ig_occlusion", baseline="zero", occlusion_steps=3)
        plain = run(LinearModel(), TWO, baseline="zero")
        np.testing.assert_allclose(found.values, plain.values, rtol=1e-4)

    def test_a_model_without_padding_token_says_so(self) -> None:
        with pytest.raises(ValueError, match="no padding token: use baseline mean"):
            run(LinearModel(), TWO, baseline="pad")


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


class TestEveryFamily:
    def test_ends_are_those_of_token_ids(self, model: Any) -> None:
        answer = run(model, baseline="pad")
        ids = tuple(0 if p in MOVED else token for p, token in enumerate(PROMPT))
        np.testing.assert_allclose(
            answer.full, value_by_ids(model, PROMPT, LABELS, target="log_odds"), atol=1e-4
        )
        np.testing.assert_allclose(
            answer.base, value_by_ids(model, ids, LABELS, target="log_odds"), atol=1e-4
        )

    def test_values_are_complete_and_those_of_a_dense_integral(self, model: Any) -> None:
        answer = run(model, steps=320)
        np.testing.assert_allclose(answer.values.sum(axis=1), answer.full - answer.base, atol=2e-3)
        np.testing.assert_allclose(answer.values, dense(model, 1500), atol=2e-3)


def dense(model: Any, points: int) -> np.ndarray:
    """Integrated gradients of log-odds by the midpoint rule, without any of the code tested."""
    layer = model.get_input_embeddings()
    with torch.no_grad():
        x = layer(torch.tensor([PROMPT]))
        start = x.clone()
        start[0, MOVED] = layer(torch.arange(VOCABULARY)).mean(dim=0)
    total = torch.zeros(len(LABELS), *x.shape[1:], dtype=torch.float64)
    for alphas in ((torch.arange(points) + 0.5) / points).split(100):
        path = (start + alphas[:, None, None] * (x - start)).requires_grad_()
        log_probs = []
        for label in LABELS:
            tail = layer(torch.tensor([label])).expand(len(path), -1, -1)
            logits = model(inputs_embeds=torch.cat([path, tail], dim=1)).logits.double()
            rows = logits.log_softmax(-1)
            first = len(PROMPT) - 1
            log_probs.append(sum(rows[:, first + i, t] for i, t in enumerate(label)))
        for j, mine in enumerate(log_probs):
            others = [p for k, p in enumerate(log_probs) if k != j]
            odds = mine - torch.logsumexp(torch.stack(others), dim=0)
            grads = torch.autograd.grad(odds.sum(), path, retain_graph=True)[0]
            total[j] += grads.double().sum(dim=0) / points
    by_token = (total * (x - start)[0]).sum(-1).numpy()
    return np.stack([by_token[:, list(word)].sum(axis=1) for word in WORDS], axis=1)


class TestAgainstCaptum:
    @pytest.mark.parametrize("target", ["log_odds", "probability", "logprob"])
    def test_equals_captum_called_by_hand_on_the_whole_prompt(self, target: Any) -> None:
        model = build()
        layer = model.get_input_embeddings()
        x = layer(torch.tensor([PROMPT]))
        start = x.clone()
        start[0, MOVED] = layer.weight[0]

        def function(rows: torch.Tensor) -> torch.Tensor:
            scores = model(inputs_embeds=rows).logits[:, -1].log_softmax(-1)[:, [3, 5, 9]]
            return explained(scores, target, "labels", None)

        labels = ((3,), (5,), (9,))
        found = run(model, labels, target=target, baseline="pad", max_steps=20)
        for label in range(3):
            by_token = (
                IntegratedGradients(function)
                .attribute(x, baselines=start, target=label, n_steps=20)[0]
                .sum(-1)
            )
            template = [p for p in range(len(PROMPT)) if p not in MOVED]
            assert (by_token[template] == 0).all()
            expected = [float(by_token[list(word)].sum()) for word in WORDS]
            np.testing.assert_allclose(found.values[label], expected, atol=1e-5)

    def test_parts_of_the_path_add_up(self) -> None:
        model = build()
        whole = GradientRunner(model, 10_000).run(ASK, LABELS)
        parts = GradientRunner(model, 3 * len(PROMPT)).run(ASK, LABELS)
        np.testing.assert_allclose(whole.values, parts.values, atol=1e-5)
        assert whole.evaluations == parts.evaluations


class TestConvergence:
    def test_steps_are_doubled_until_the_values_are_complete(self) -> None:
        answer = run(build(noise=0.3), steps=2, floor=1e-9)
        assert answer.converged
        error = np.abs(answer.full - answer.base - answer.values.sum(axis=1))
        assert (error <= 0.05 * np.abs(answer.full - answer.base)).all()
        assert answer.steps > 2
        # two ends, and 2 + 4 + … up to the last number of steps
        assert answer.evaluations == 2 + 2 * answer.steps - 2
        assert answer.tokens == answer.evaluations * len(PROMPT)

    def test_what_stays_incomplete_says_so_at_the_most_steps(self) -> None:
        answer = run(build(noise=0.5), steps=2, max_steps=5, baseline="zero", floor=1e-9)
        assert (answer.converged, answer.steps, answer.evaluations) == (False, 5, 2 + 2 + 4 + 5)

    def test_a_floor_is_always_good_enough(self) -> None:
        assert run(build(noise=0.5), steps=2, baseline="zero", floor=1e9).steps == 2


class TestLabels:
    @pytest.mark.parametrize("calibration", [None, (-1.0, -3.0)])
    @pytest.mark.parametrize("normaliser", ["labels", "vocab"])
    @pytest.mark.parametrize("target", ["log_odds", "probability", "logprob"])
    def test_two_labels_are_as_complete_as_many(
        self, target: Any, normaliser: Any, calibration: Any
    ) -> None:
        labels = ((3,), (5, 7))
        answer = run(
            build(),
            labels,
            target=target,
            normaliser=normaliser,
            calibration=calibration,
            steps=160,
            floor=1e-6,
        )
        change = answer.full - answer.base
        np.testing.assert_allclose(answer.values.sum(axis=1), change, atol=2e-4)
        assert np.abs(answer.values).max() > 1e-9

    @pytest.mark.parametrize("normaliser", ["labels", "vocab"])
    @pytest.mark.parametrize("target", ["log_odds", "probability", "logprob"])
    def test_tensors_are_transformed_as_arrays(self, target: Any, normaliser: Any) -> None:
        raw = np.random.default_rng(0).normal(size=(6, 3)) * [1.0, 30.0, 200.0] - 5.0
        found = explained(torch.from_numpy(raw), target, normaliser, None).numpy()
        np.testing.assert_allclose(found, transform(raw, target, normaliser), atol=1e-12)


class TestOcclusion:
    def test_one_feature_a_step_is_cumulative_leave_one_out(self) -> None:
        model = build()
        answer = run(model, method="ig_occlusion", occlusion_steps=3)
        ranked = run(model)
        for label, row in enumerate(ranked.values):
            order = np.argsort(-np.abs(row))
            along = [value_with_zeros(model, order[:k])[label] for k in range(4)]
            np.testing.assert_allclose(answer.curve[label], along, atol=1e-4)
            np.testing.assert_allclose(answer.values[label, order], -np.diff(along), atol=1e-4)

    def test_features_of_a_step_share_its_drop(self) -> None:
        answer = run(build(), method="ig_occlusion", occlusion_steps=1)
        drop = (answer.full - answer.base) / len(WORDS)
        np.testing.assert_allclose(answer.values, np.repeat(drop[:, None], 3, axis=1), atol=1e-6)

    def test_the_drops_add_up(self) -> None:
        answer = run(build(), method="ig_occlusion", occlusion_steps=2)
        np.testing.assert_allclose(answer.values.sum(1), answer.full - answer.base, atol=1e-9)
        np.testing.assert_allclose(answer.curve[:, 0], answer.full, atol=1e-4)


def value_with_zeros(model: Any, words: Any) -> np.ndarray:
    """Log-odds of the prompt with the embeddings of some words set to zero."""
    layer = model.get_input_embeddings()
    log_probs = []
    for label in LABELS:
        x = layer(torch.tensor([PROMPT + label]))
        x[0, [p for word in words for p in WORDS[word]]] = 0.0
        rows = model(inputs_embeds=x).logits[0].double().log_softmax(-1)[len(PROMPT) - 1 :]
        log_probs.append(sum(float(rows[i, t]) for i, t in enumerate(label)))
    return transform(np.array([log_probs]), "log_odds")[0]


class TestWeights:
    @pytest.mark.parametrize("method", ["integrated_gradients", "ig_occlusion"])
    def test_prepacked_layers_give_the_stock_gradients(self, method: str) -> None:
        model = build()
        expected = run(model, method=method, occlusion_steps=2)
        assert prepack(model) is not None
        found = run(model, method=method, occlusion_steps=2)
        np.testing.assert_allclose(found.values, expected.values, atol=1e-4)

    @pytest.mark.parametrize(("bits", "nested"), [(4, False), (4, True), (8, False)])
    @pytest.mark.parametrize("scored_before", [False, True])
    def test_quantized_bases_are_differentiated(
        self, bits: int, nested: bool, scored_before: bool, tmp_path: Path
    ) -> None:
        build().save_pretrained(tmp_path)
        config = (
            BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=torch.float32,
                bnb_4bit_use_double_quant=nested,
            )
            if bits == 4
            else BitsAndBytesConfig(load_in_8bit=True)
        )
        quantized = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path, quantization_config=config, dtype=torch.float32
        )
        quantized.eval().requires_grad_(False)
        layer = quantized.model.layers[0].mlp.up_proj
        assert type(layer).__module__.startswith("bitsandbytes")
        if scored_before:  # where the CPU has kernels of its own, weights are laid out for them
            with torch.inference_mode():
                quantized(input_ids=torch.tensor([PROMPT]))
        found = run(quantized, floor=0.02)
        assert found.converged
        stock = run(build(), floor=0.02)
        assert np.corrcoef(found.values.ravel(), stock.values.ravel())[0, 1] > 0.9

    def test_half_precision_keeps_the_path_in_single(self) -> None:
        half = build().to(torch.bfloat16)
        found = run(half, floor=0.2, max_steps=40)
        stock = run(build(), max_steps=40)
        assert found.values.dtype == np.float64
        np.testing.assert_allclose(found.values, stock.values, atol=0.2)


class TestRefusals:
    def test_a_model_whose_kernels_have_no_derivative(self) -> None:
        class Opaque(LinearModel):
            def forward(self, input_ids: Any = None, inputs_embeds: Any = None, **_: Any) -> Any:
                found = super().forward(input_ids, inputs_embeds)
                found.logits = found.logits.detach().requires_grad_()
                return found

        with pytest.raises(ModelError, match="no gradient of Opaque's answer reaches"):
            GradientRunner(Opaque(), 512)

    def test_features_without_tokens(self) -> None:
        with pytest.raises(ValueError, match="no feature has a token"):
            run(build(), positions=((), ()))

    def test_a_feature_without_tokens_beside_others_has_no_value(self) -> None:
        answer = run(build(), positions=((2,), (), (6,)))
        assert (answer.values[:, 1] == 0).all()
        assert (answer.values[:, 0] != 0).all()

    def test_a_token_of_two_features_is_shared(self) -> None:
        moved, share = tokens_of(((2, 3), (3,), ()))
        assert moved == (2, 3)
        np.testing.assert_array_equal(share, [[1, 0, 0], [0.5, 0.5, 0]])

    def test_a_model_without_input_embeddings(self) -> None:
        class Deaf(LinearModel):
            def forward(self, input_ids: Any = None) -> Any:
                return super().forward(input_ids)

        with pytest.raises(ModelError, match="Deaf takes no input embeddings"):
            GradientRunner(Deaf(), 512)

    def test_a_model_that_answers_otherwise_to_embeddings(self) -> None:
        class Scaled(LinearModel):
            def forward(self, input_ids: Any = None, inputs_embeds: Any = None, **_: Any) -> Any:
                x = 2 * self.embed(input_ids) if inputs_embeds is None else inputs_embeds
                return super().forward(inputs_embeds=x)

        with pytest.raises(ModelError, match="Scaled answers otherwise to embeddings"):
            GradientRunner(Scaled(), 512)

    @pytest.mark.parametrize("method", ["integrated_gradients", "gradient_x_input", "ig_occlusion"])
    def test_what_overflows_says_so(self, method: Any) -> None:
        """Forward alone, and backward where the way forward is fine."""
        wide = LinearModel()
        runner = GradientRunner(wide, 512)
        with torch.no_grad():
            wide.out.weight *= 1e38
        with pytest.raises(ValueError, match="not a number: use bf16 or fp32"):
            runner.run(replace(ASK, method=method), TWO)

        class Steep(LinearModel):
            def forward(self, inputs_embeds: Any = None, **inputs: Any) -> Any:
                if inputs_embeds is not None and inputs_embeds.requires_grad:
                    inputs_embeds.register_hook(lambda gradient: gradient * float("nan"))
                return super().forward(inputs_embeds=inputs_embeds, **inputs)

        runner._model.model = Steep()
        with pytest.raises(ValueError, match="not a number: use bf16 or fp32"):
            runner.run(replace(ASK, method=method, max_steps=10**9), TWO)

    def test_what_does_not_fit_is_halved_down_to_one_prompt(self) -> None:
        class Scarce(LinearModel):
            most = 4

            def forward(self, inputs_embeds: Any = None, **inputs: Any) -> Any:
                if inputs_embeds is not None and len(inputs_embeds) > self.most:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return super().forward(inputs_embeds=inputs_embeds, **inputs)

        scarce = Scarce()
        np.testing.assert_allclose(run(scarce, TWO).values, run(LinearModel(), TWO).values)
        scarce.most = 0
        runner = GradientRunner(LinearModel(), 512)
        runner._model.model = scarce
        with pytest.raises(ValueError, match="a prompt of 9 tokens do not fit"):
            runner.run(ASK, TWO)
