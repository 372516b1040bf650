"""What a model family allows, found by trying it at load against the plain forward pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actors.backend import BackendOutOfMemoryError, SequenceBatch
from actors.batching import Ids, ScoreSequence, cut_elsewhere
from actors.compiled import compile_layers, sizes_up_to
from actors.label_reads import Reading, output_matrix
from actors.label_scorer import LabelScorer
from actors.loader import model_window
from actors.packed_forward import GPU_PIECE, MASKED_PIECE, PIECE, PackedForward, Route
from actors.prefix_cache import PrefixCache, supports_prefixes
from actors.prepacked import prepack
from engine import not_a_number
from engine.errors import ModelError
from engine.ragged import Ragged

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

_LONG_PROBE = 1100  # tokens; on a CPU a probe of a second or two for small models
_PREFIX = 4
_LENGTHS = (6, 9, 12)
_LABELS = ((3,), (5, 7), (5, 8, 11))
_AFTER: tuple[Ids, ...] = ((2,), (2, 3, 5, 7), (2, 3, 5, 7, 11, 13, 17, 19, 23))


def make_scorer(
    model: PreTrainedModel, prefixes_kept: int, tolerance: float | None = None
) -> tuple[LabelScorer, str]:
    """Return the first scorer that agrees with the plain forward pass, and its name.

    Tried on a probe of three short sequences with labels of one to three tokens: the output matrix
    on gathered states (families that scale or cap their logits differ there), padded batches, and
    the kept prefix.

    Args:
        model: A loaded causal model.
        prefixes_kept: Most prefixes to keep; 0 turns their reuse off.
        tolerance: That of the model, where it is known; see `tolerance_of`.

    Raises:
        ModelError: A padded batch differs from one sequence at a time, or there is no number.
    """
    import torch

    probe = _probe(vocabulary_size(model))
    with torch.inference_mode():
        expected = np.array([_plain(model, sequence) for sequence in probe])
    if np.isnan(expected).any():
        raise ModelError(f"{type(model).__name__}: {not_a_number.MESSAGE}")
    exact = _is_exact(model)
    tolerance = tolerance_of(model) if tolerance is None else tolerance
    reading = _reading(model, probe, exact)
    scorer = LabelScorer(model, reading, None)
    gap = _gap(scorer.score(probe, _LABELS)[0], expected)
    if not gap <= tolerance:
        raise ModelError(
            f"{type(model).__name__} scores a padded batch {gap:.2g} off a single sequence, so its "
            "results would depend on what is scored together; use another model"
        )
    # a kept prefix was turned as a short row is, whatever it is continued with
    if prefixes_kept and supports_prefixes(model.config) and not _batch_bound(model.config):
        fast = LabelScorer(model, reading, PrefixCache(model, prefixes_kept))
        if _gap(fast.score(probe, _LABELS, _PREFIX)[0], expected) <= tolerance:
            return fast, f"{reading}+prefix"
    return scorer, reading


def prepack_checked(
    model: PreTrainedModel, scorer: LabelScorer, unpacked: Collection[nn.Module] = ()
) -> bool:
    """Prepack a model's linear layers if its scores stay; return whether they are packed.

    Args:
        model: A loaded causal model.
        scorer: Its scorer, chosen by `make_scorer` on the stock layers.
        unpacked: Layers that stay as they are.
    """
    probe = _probe(vocabulary_size(model))
    before = scorer.score(probe, _LABELS)[0].astype(np.float64)
    undo = prepack(model, unpacked)
    if undo is None:
        return False
    try:
        stays = _gap(scorer.score(probe, _LABELS)[0], before) <= 1e-3
    except AttributeError:  # a family that looks into its layers, as Falcon-Mamba does
        stays = False
    if not stays:
        undo()
    return stays


def packing_checked(
    model: PreTrainedModel,
    reading: Reading,
    prefixes_kept: int,
    replicate: int = 0,
    tolerance: float | None = None,
    padded: bool = False,
) -> tuple[PackedForward, int | None] | None:
    """Return packed scoring if it agrees with the plain forward pass, and up to which length.

    The probe is a trie of several levels of branches cut into several pieces. Families whose states
    aren't functions of the tokens before alone (recurrent ones that mix across a row, bidirectional
    ones), or whose attention can be given neither a function nor a mask, differ there or fail. A
    sliding window is made to bind by a probe that is longer; where that would take too long, only
    prompts inside the window are packed. The pieces of a `replicate` are cut elsewhere. Where they
    are to be `padded` to fixed sizes, only routes that allow it are tried.

    Returns:
        The scorer, and how many tokens of a prompt with its label may be packed (None: any number),
        or None where the family can't be packed.
    """
    import torch

    if reading == "full":
        return None
    window, bound = _sliding_window(model.config), _batch_bound(model.config)
    longest = _LONG_PROBE if model.device.type == "cpu" else 8 * _LONG_PROBE
    longest = min(longest, bound or longest, model_window(model.config) or longest)
    binds = window is not None and window + 8 + max(map(len, _LABELS)) <= longest
    bounds = [bound, None if binds else window]
    probes = [_tree_probe(vocabulary_size(model))]
    if binds:
        assert window is not None
        probes.append(_long_probe(vocabulary_size(model), window + 8))
    with torch.inference_mode():
        expected = [np.array([_plain(model, row) for row in probe]) for probe in probes]
    batches = [SequenceBatch(Ragged.of([row.ids for row in probe]), None) for probe in probes]
    piece = cut_elsewhere(PIECE if model.device.type == "cpu" else GPU_PIECE, replicate)
    tolerance = tolerance_of(model) if tolerance is None else tolerance
    routes: tuple[Route, ...] = ("lean", "pruned", "whole", "masked")
    for route in routes[1:3] if padded else routes:
        try:
            sizes = (16, 24) if padded else ()
            packed = PackedForward(model, reading, max(prefixes_kept, 1), 24, 5, route, sizes)
            gaps = [
                _gap(packed.score(batch, _LABELS).log_probs, scores)
                for batch, scores in zip(batches, expected, strict=True)
            ]
        except _NOT_BUILT_ALIKE:
            continue
        if not all(gap <= tolerance for gap in gaps):
            continue
        if route == "masked":
            piece = cut_elsewhere(MASKED_PIECE, replicate)
            if not _wide_gap(model, reading) <= tolerance:
                return None
        checked = PackedForward(
            model,
            reading,
            prefixes_kept,
            piece=piece,
            route=route,
            sizes=sizes_up_to(piece) if padded else (),
        )
        return checked, min((b for b in bounds if b), default=None)
    return None


def compile_checked(model: PreTrainedModel, packed: PackedForward, tolerance: float) -> None:
    """Compile a model's layers for the sizes that a scorer pads pieces to.

    Args:
        model: A loaded causal model.
        packed: Its scorer.
        tolerance: How far scores may lie apart; see `tolerance_of`.

    Raises:
        ModelError: The layers can't be compiled, or don't score as before; they are back then.
    """
    batch = SequenceBatch(Ragged.of([row.ids for row in _tree_probe(vocabulary_size(model))]), None)
    before = packed.score(batch, _LABELS).log_probs.astype(np.float64)
    undo: Callable[[], None] | None = None
    try:
        undo = compile_layers(model)
        gap = _gap(packed.score(batch, _LABELS).log_probs, before)
        if gap <= tolerance:
            return
        why = f"its scores lie {gap:.2g} from those before"
    except Exception as error:  # of torch's compiler, or the compiler that it calls
        why = str(error).strip().splitlines()[0]
    if undo is not None:
        undo()
    raise ModelError(f"{type(model).__name__} can't be compiled: {why}; leave out options.compile")


_NOT_BUILT_ALIKE = (
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    AttributeError,
    BackendOutOfMemoryError,
)
"""What a family raises whose layers aren't built as the others' are."""


def _sliding_window(config: Any) -> int | None:
    """Return the width of a family's sliding windows, or None where it has none."""
    window = getattr(config.get_text_config(decoder=True), "sliding_window", None)
    return int(window) if window else None


def _batch_bound(config: Any) -> int | None:
    """Return up to how many tokens a state is a function of the tokens before it alone.

    Rotary positions of some kinds follow the longest row of a batch from there on; and chunks of
    attention, which the tree knows nothing of, begin to bind.
    """
    config = config.get_text_config(decoder=True)
    bounds = [getattr(config, "attention_chunk_size", None)]
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if kind.get("rope_type") in ("dynamic", "longrope"):
            trained = kind.get("original_max_position_embeddings")
            bounds.append(trained or config.max_position_embeddings)
    return min((int(bound) for bound in bounds if bound), default=None)


def _tree_probe(vocabulary: int) -> list[ScoreSequence]:
    """Return sequences of a trie with branches at four depths, one of them within another."""
    spread = [(7919 * i + 13) % vocabulary for i in range(40)]
    stem = spread[:_PREFIX]
    rows = [
        (*stem, *spread[4:8], *spread[a : a + 3], *spread[b : b + 2], *spread[20:24])
        for a in (8, 11, 14)
        for b in (17, 19)
    ]
    rows += [(*stem, *spread[24:32]), (*stem, *spread[24:28], *spread[33:36])]
    rows.append(rows[0][:-2])
    return [ScoreSequence(tuple(row)) for row in rows]


def _wide_gap(model: PreTrainedModel, reading: Reading) -> float:
    """Return the gap of a trie with many short branches in one full piece.

    Attention of a family's own may count its windows by a key's place in the row instead of by
    position (GPT-Neo does); that shows only where there are more places than the window has.
    """
    import torch

    vocabulary = vocabulary_size(model)
    stem = [(7919 * i + 13) % vocabulary for i in range(_PREFIX)]
    rows = [
        ScoreSequence((*stem, *((7919 * (5 * branch + i) + 29) % vocabulary for i in range(5))))
        for branch in range(MASKED_PIECE // 5)
    ]
    some = [0, len(rows) // 2, len(rows) - 1]
    with torch.inference_mode():
        expected = np.array([_plain(model, rows[i]) for i in some])
    packed = PackedForward(model, reading, 1, MASKED_PIECE, route="masked")
    try:
        found = packed.score(SequenceBatch(Ragged.of([row.ids for row in rows]), None), _LABELS)
    except _NOT_BUILT_ALIKE:
        return float("inf")
    return _gap(found.log_probs[some], expected)


def _long_probe(vocabulary: int, length: int) -> list[ScoreSequence]:
    """Return two sequences of a length that part in the middle."""
    rows = [[(7919 * i + 13) % vocabulary for i in range(length)] for _ in range(2)]
    rows[1][length // 2] = (rows[1][length // 2] + 1) % vocabulary
    return [ScoreSequence(tuple(row)) for row in rows]


def vocabulary_size(model: Any) -> int:
    """Return the number of token ids that a model takes."""
    return int(model.get_input_embeddings().weight.shape[0])


def _probe(vocabulary: int) -> list[ScoreSequence]:
    """Return sequences that share their first tokens, the rest spread over the vocabulary."""
    spread = [(7919 * i + 13) % vocabulary for i in range(sum(_LENGTHS))]
    return [
        ScoreSequence(tuple(spread[:_PREFIX] + spread[_PREFIX + length : 2 * length]))
        for length in _LENGTHS
    ]


def _is_exact(model: PreTrainedModel) -> bool:
    """Return whether a model computes in single precision, its states not rounded on the way."""
    import torch

    return model.dtype == torch.float32 and not getattr(model, "is_quantized", False)


def tolerance_of(model: PreTrainedModel) -> float:
    """Return how far scores of one sequence may lie apart by rounding.

    In less than single precision that follows from the weights: on a trained model of 135 million
    in bf16 the sum of three improbable tokens moves by 1, on a tiny one by 0.01. How far plain
    passes move where a few tokens are appended, which no answer depends on, shows the size of it;
    the ways of scoring lie at most three times as far apart. What is wrong lies further.
    """
    import torch

    if _is_exact(model):
        return 1e-3
    vocabulary = vocabulary_size(model)
    probe = [*_probe(vocabulary), *_tree_probe(vocabulary)]
    with torch.inference_mode():
        alone = np.array([_plain(model, row) for row in probe])
        moved = [
            _gap(np.array([_plain(model, row, after) for row in probe], dtype=np.float32), alone)
            for after in _AFTER
        ]
    return float(np.clip(4 * max(moved), 0.25, max(0.25, 0.1 * np.ptp(alone))))


def _plain(model: PreTrainedModel, sequence: ScoreSequence, after: Ids = ()) -> list[float]:
    """Return the labels' log-probabilities [L], every label run whole in a pass of its own.

    Args:
        model: The model.
        sequence: The prompt.
        after: Tokens behind each label.
    """
    import torch

    totals = []
    for label in _LABELS:
        row = torch.tensor([sequence.ids + label + after], device=model.device)
        log_probs = model(input_ids=row).logits[0].float().log_softmax(dim=-1)
        first = len(sequence.ids) - 1
        totals.append(sum(float(log_probs[first + i, token]) for i, token in enumerate(label)))
    return totals


def _reading(model: PreTrainedModel, probe: list[ScoreSequence], exact: bool) -> Reading:
    import torch

    with torch.inference_mode():
        row = torch.tensor([probe[0].ids], device=model.device)
        logits = model(input_ids=row).logits[0].float()
        gathered = _head_logits(model, row)
    scale = 1.0 + float(logits.abs().max())
    if gathered is not None and gathered.shape == logits.shape:
        gap = float((gathered - logits).abs().max()) / scale
        if gap <= (1e-5 if exact else 0.02):
            return "gathered"
    takes = "logits_to_keep" in inspect.signature(model.forward).parameters
    return "kept" if takes else "full"


def _head_logits(model: PreTrainedModel, row: torch.Tensor) -> torch.Tensor | None:
    head = output_matrix(model)
    if head is None or model.base_model is model:
        return None
    states = model.base_model(input_ids=row).last_hidden_state[0]
    if states.dtype != getattr(head, "weight", states).dtype:
        return None  # as Mamba's, whose sums stay in fp32 beside any weights
    logits: torch.Tensor = head(states).float()
    return logits


def _gap(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> float:
    """Return the largest difference; NaN where one is."""
    return float(np.abs(found - expected).max())
