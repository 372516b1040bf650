"""Every family in every precision: packed scores are those of the same model in plain passes.

All families that are packed are held in bf16 and nf4, some in fp16, fp4 and int8; fp32 is
`test_packed.py`'s. The models are as random as there but twice as wide: bitsandbytes' kernels take
no matrices of fewer than 64 columns, and dequantize those instead.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from bitsandbytes.nn import Linear8bitLt

from actors.backend import HostInfo, HostSpec, Scores
from actors.batching import ScoreSequence
from actors.hf_host import TransformersBackend
from actors.loader import load_model, resolve_model
from actors.memory_need import memory_need
from actors.packed_forward import PackedForward
from actors.precision import computes_in_bf16
from actors.quantized import count_quantized
from engine.errors import ModelError
from engine.schema import ScoreTask
from tests.models.test_packed import FALL_BACK, PACKED, batch_of, distinct_prefixes
from tests.models.tiny import FAMILIES, LABELS, build, config_of, plain, prompts

pytestmark = [pytest.mark.models, pytest.mark.usefixtures("one_thread")]

BOUND = {"bf16": 0.15, "fp16": 0.02, "nf4": 0.1, "fp4": 0.1, "int8": 0.05}
"""Largest difference between a label's log-probability packed and by a plain pass.

- bf16: every state and every logit is rounded to 8 bits. Logits up to 8 lie 1/32 apart, labels have
  up to three tokens, and the plain pass rounds the logits of the labels where the packed one
  doesn't.
- fp16: the same with 11 bits, an eighth of it.
- nf4, fp4: the rest is in fp32, but where the CPU multiplies in bf16 its kernel rounds what goes
  into a product. Nearly always to the same number; where the ways' last bits in fp32 lie on both
  sides of a boundary, by one in 8 bits. With products in fp32: `EXACT`.
- int8: likewise, what goes into a product is rounded to 1/127 of its row's largest.
"""

EXACT = 1e-5
"""The same where nothing is rounded but to fp32."""

CHOSEN = 2
"""Prompts of the 8 that may lie further apart in families with experts: where two experts are all
but equally likely, rounding decides for one. Granite MoE in fp16 does so at one token of one
prompt, in plain passes too when tokens are appended, and a label moves by 0.27."""

SOME = ["llama", "gpt2", "gemma3", "granitemoe", "falcon", "deepseek_v3"]
"""Lean layers; Conv1D; windows; experts; linear layers of its own; inputs of four dimensions."""

EXPERTS = {"experts.down_proj", "experts.gate_up_proj"}
UNQUANTIZED = {
    "mixtral": {*EXPERTS, "gate.weight"},
    "qwen3 moe": {*EXPERTS, "gate.weight"},
    "granitemoe": {*EXPERTS, "router.weight"},
    "deepseek_v3": {*EXPERTS, "gate.weight"},
    "gpt_oss": {
        *EXPERTS,
        "experts.down_proj_bias",
        "experts.gate_up_proj_bias",
        "router.weight",
    },
    "mamba": {"mixer.A_log", "conv1d.weight", "dt_proj.weight"},
    "falcon_mamba": {"mixer.A_log", "conv1d.weight"},
    "recurrent_gemma": {
        "conv_1d.weight",
        *(
            f"rg_lru.{which}_gate_{what}"
            for which in ("input", "recurrent")
            for what in ("weight", "bias")
        ),
    },
}
"""Weights of two dimensions and more that bitsandbytes leaves alone, embeddings and output matrix
aside: none in families that aren't named."""

_WIDER = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "lru_width"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim"), 128),
    "head_dim": 16,
    "final_logit_softcapping": 4.0,
}


class Held(NamedTuple):
    """A loaded backend, what it answers to `PROMPTS`, and what plain passes of its model give."""

    backend: TransformersBackend
    info: HostInfo
    found: Scores
    log_probs: npt.NDArray[np.float64]
    log_z: npt.NDArray[np.float64]

    def gaps(self) -> npt.NDArray[np.float64]:
        """The largest difference between both for each prompt [S]."""
        assert not self.found.errors
        labels = np.abs(self.found.log_probs - self.log_probs).max(axis=1)
        return np.maximum(labels, np.abs(self.found.log_z - self.log_z))


PROMPTS = [*prompts(7), prompts(7)[2]]


@pytest.fixture(scope="module", autouse=True)
def _wide_models() -> Iterator[None]:
    narrow = dict(FAMILIES)
    for family, (name, fields) in narrow.items():
        FAMILIES[family] = (name, {key: _WIDER.get(key, value) for key, value in fields.items()})
    yield
    FAMILIES.update(narrow)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    made: dict[str, Path] = {}

    def folder(family: str) -> str:
        if family not in made:
            made[family] = tmp_path_factory.mktemp("model")
            build(family).save_pretrained(made[family])
        return str(made[family])

    return folder


def by_plain_passes(
    model: Any, rows: Sequence[ScoreSequence] = PROMPTS
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Log-probabilities [S, L] and log Z [S]."""
    each = [plain(model, row) for row in rows]
    return np.array([scores for scores, _ in each]), np.array([log_z for _, log_z in each])


def hold(folder: str, precision: str) -> Held:
    backend = TransformersBackend(HostSpec(folder, precision=precision, device="cpu", threads=1))
    info = backend.load()
    found = backend.score(batch_of(PROMPTS), ScoreTask(LABELS))
    return Held(backend, info, found, *by_plain_passes(backend.model))


def check_packed(held: Held, precision: str, family: str) -> None:
    assert held.info.precision == precision
    assert held.info.scorer.startswith("packed+")
    found = held.found
    assert found.tokens_computed == found.tokens_distinct == distinct_prefixes(PROMPTS)
    check_bound(held, precision, family)


def check_bound(held: Held, precision: str, family: str) -> None:
    chooses = UNQUANTIZED.get(family, set()) >= EXPERTS
    assert np.sum(held.gaps() > BOUND[precision]) <= (CHOSEN if chooses else 0)


def left_alone(model: Any) -> set[str]:
    """Endings of the names of the weights that `UNQUANTIZED` speaks of."""
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    head = getattr(model.get_output_embeddings(), "weight", None)  # none in oneDNN's layout
    aside = {id(head), *(id(table.weight) for table in tables)}
    return {
        ".".join(name.split(".")[-2:])
        for name, weight in model.named_parameters()
        if weight.dim() > 1 and weight.is_floating_point() and id(weight) not in aside
    }


def check_quantized(model: Any, family: str) -> None:
    assert count_quantized(model) >= 9  # three layers
    assert left_alone(model) == UNQUANTIZED.get(family, set())


@pytest.mark.parametrize("family", PACKED)
def test_bf16_is_as_near_to_the_exact_scores_as_plain_passes(
    family: str, folder_of: Callable[[str], str]
) -> None:
    """Exact: the same weights in fp32. Whole models in bf16 lie further from it than from one
    another, as they round alike."""
    held = hold(folder_of(family), "bf16")
    check_packed(held, "bf16", family)
    exact, _ = by_plain_passes(copy.deepcopy(held.backend.model).float())
    packed = np.sqrt(np.mean((held.found.log_probs - exact) ** 2))
    assert packed <= 1.5 * np.sqrt(np.mean((held.log_probs - exact) ** 2))


@pytest.mark.parametrize("family", PACKED)
def test_nf4_as_loaded_and_with_products_in_fp32(
    family: str, folder_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hold(folder_of(family), "nf4")
    check_packed(held, "nf4", family)
    check_quantized(held.backend.model, family)
    # as on a CPU that doesn't multiply in bf16
    monkeypatch.setattr("actors.precision.computes_in_bf16", lambda device: False)
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    model = load_model(resolve_model(folder_of(family)), "nf4", "cpu")
    assert held.backend._packed is not None
    assert held.backend._scorer is not None
    reading, route = held.backend._scorer.reading, held.backend._packed.route
    found = PackedForward(model, reading, 4, 24, 5, route).score(batch_of(PROMPTS), LABELS)
    expected, log_z = by_plain_passes(model)
    np.testing.assert_allclose(found.log_probs, expected, atol=EXACT, rtol=0)
    np.testing.assert_allclose(found.log_z, log_z, atol=EXACT, rtol=0)
    assert found.tokens_computed == distinct_prefixes(PROMPTS)


@pytest.mark.parametrize("precision", ["fp16", "fp4", "int8"])
@pytest.mark.parametrize("family", SOME)
def test_other_precisions(family: str, precision: str, folder_of: Callable[[str], str]) -> None:
    held = hold(folder_of(family), precision)
    check_packed(held, precision, family)
    if precision != "fp16":
        check_quantized(held.backend.model, family)


@pytest.mark.parametrize("precision", ["nf4", "fp4", "int8"])
def test_products_do_not_depend_on_the_rows_beside(
    precision: str, folder_of: Callable[[str], str]
) -> None:
    """To the last bit, with the CPU's own 4-bit kernel and with integers. So what moves the scores
    comes from fp32's last bits in between."""
    if precision != "int8" and not computes_in_bf16("cpu"):
        pytest.skip("this CPU dequantizes 4-bit weights for a product in fp32")
    model: Any = load_model(resolve_model(folder_of("llama")), precision, "cpu")
    layer = model.model.layers[0].mlp.up_proj
    rows = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = layer(rows)
        assert torch.equal(together, torch.cat([layer(row[None]) for row in rows]))


@pytest.mark.parametrize("precision", ["nf4", "fp4", "int8"])
def test_layers_take_inputs_of_any_layout(precision: str, folder_of: Callable[[str], str]) -> None:
    """Transposed, of four dimensions, and both."""
    model: Any = load_model(resolve_model(folder_of("llama")), precision, "cpu")
    layer = model.model.layers[0].mlp.up_proj
    rows = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = layer(rows)
        assert torch.equal(layer(rows.T.contiguous().T), expected)
        assert torch.equal(layer(rows.T.contiguous().T[None]), expected[None])
        four = rows.reshape(2, 5, 4, 64)
        assert torch.equal(layer(four), expected.reshape(2, 5, 4, -1))
        assert torch.equal(layer(four.transpose(1, 2)).transpose(1, 2), layer(four))


def test_int8_moves_packed_no_further_than_batches_move_it(
    folder_of: Callable[[str], str],
) -> None:
    """And less than it would with the paper's threshold, which batches decide about."""
    rows = prompts(10)
    packed, batches = {0.0: 0.0, 6.0: 0.0}, {0.0: 0.0, 6.0: 0.0}
    for family in ("llama", "gpt_neox", "gptj"):  # in the latter two some inputs lie on a boundary
        held = hold(folder_of(family), "int8")
        scorer, forward = held.backend._scorer, held.backend._packed
        assert scorer is not None
        assert forward is not None
        layers = [m for m in held.backend.model.modules() if isinstance(m, Linear8bitLt)]
        assert {layer.state.threshold for layer in layers} == {0.0}
        for threshold in packed:
            for layer in layers:
                layer.state.threshold = threshold
            alone, _ = by_plain_passes(held.backend.model, rows)
            found = forward.score(batch_of(rows), LABELS).log_probs
            packed[threshold] = max(packed[threshold], float(np.abs(found - alone).max()))
            pairs = [scorer.score(rows[i : i + 2], LABELS)[0] for i in range(0, len(rows), 2)]
            for other in (scorer.score(rows, LABELS)[0], np.concatenate(pairs)):
                gap = float(np.abs(other - alone).max())
                batches[threshold] = max(batches[threshold], gap)
    assert packed[0.0] <= max(2 * batches[0.0], EXACT)
    assert packed[0.0] <= BOUND["int8"] < min(packed[6.0], batches[6.0])


@pytest.mark.parametrize("family", FALL_BACK)
def test_families_that_are_not_packed_score_right_in_nf4(
    family: str, folder_of: Callable[[str], str]
) -> None:
    held = hold(folder_of(family), "nf4")
    assert "packed+" not in held.info.scorer
    assert held.info.precision == "nf4"
    check_bound(held, "nf4", family)
    check_quantized(held.backend.model, family)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_state_spaces_in_other_precisions(precision: str, folder_of: Callable[[str], str]) -> None:
    """Mamba's sums stay in fp32 beside weights in bf16, and it multiplies by one weight itself."""
    check_bound(hold(folder_of("mamba"), precision), precision, "mamba")


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_what_falcon_takes_is_reckoned_as_it_is_loaded(
    precision: str, folder_of: Callable[[str], str]
) -> None:
    """Its layers derive from Linear: transformers would quantize none of them."""
    held = hold(folder_of("falcon with groups"), precision)
    need = memory_need(config_of("falcon with groups"), "", precision, "cpu")
    assert need.weight_bytes == pytest.approx(held.info.memory_bytes, rel=0.1)
    assert held.info.memory_bytes < 2 * held.info.parameters


def test_a_model_of_which_nothing_is_quantized_is_refused(
    folder_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.loader.unquantized", lambda config: ["model", "lm_head"])
    with pytest.raises(ModelError, match=r"no layer of .* to quantize"):
        load_model(resolve_model(folder_of("llama")), "nf4", "cpu")
