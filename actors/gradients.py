"""Attributions from the gradients of a loaded model, by captum's quadrature."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actors.batching import Ids
from actors.embedded import EmbeddedModel, EmbeddedPrompt
from actors.out_of_memory import free_memory, is_out_of_memory
from engine import not_a_number
from engine.gradients import GradientAnswer, GradientAsk
from engine.types import FloatCL, FloatL, FloatLF

if TYPE_CHECKING:
    import torch

RELATIVE_ERROR = 0.05
"""Completeness error that is good enough, as a share of |F(x) − F(baseline)| (Sundararajan et al.
2017, section 5)."""


class _Integral(NamedTuple):
    """Values of the moved tokens [L, P] by a quadrature of `steps` points."""

    values: FloatLF
    steps: int
    converged: bool


class _Occlusion(NamedTuple):
    """Values of the features [L, F], of the fully occluded text [L], and along the way [L, S+1]."""

    values: FloatLF
    base: FloatL
    curve: FloatCL


class GradientRunner:
    """Answers rows of `GRADIENT_REQUEST` with a loaded model.

    Args:
        model: A causal model whose weights take no gradients; quantized layers may stay so.
        tokens_at_a_time: Most tokens whose activations are kept for the way back; at least one
            prompt's are.

    Raises:
        ModelError: The family can't be differentiated by its embeddings.
    """

    def __init__(self, model: Any, tokens_at_a_time: int) -> None:
        self._model = EmbeddedModel(model)
        self._tokens_at_a_time = tokens_at_a_time

    def run(self, ask: GradientAsk, label_ids: tuple[Ids, ...]) -> GradientAnswer:
        """Return the attributions of one example to all labels.

        Raises:
            ValueError: The baseline doesn't exist, no feature has a token, one prompt doesn't fit
                into memory, or the answer is not a number.
        """
        rows = max(1, self._tokens_at_a_time // len(ask.ids))
        while True:
            try:
                return self._run(ask, label_ids, rows)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error).splitlines()[0]
            # outside the handler: its traceback would hold the tensors of the failed pass
            free_memory()
            if rows == 1:
                raise ValueError(
                    f"the gradients of a prompt of {len(ask.ids)} tokens do not fit into the "
                    f"host's memory ({message}); use a smaller precision or a larger device"
                )
            rows //= 2

    def _run(self, ask: GradientAsk, label_ids: tuple[Ids, ...], rows: int) -> GradientAnswer:
        started = time.perf_counter()
        moved, share_PF = tokens_of(ask.positions)
        prompt = EmbeddedPrompt(self._model, ask, label_ids, moved)
        base, full = _numbers(_values(prompt, _stack([prompt.baseline, prompt.tokens]), rows))
        curve = None
        if ask.method == "gradient_x_input":
            integral = _Integral(_numbers(_gradient_x_input(prompt)), 1, True)
        else:
            integral = _integrate(prompt, ask, full - base, rows)
        values = integral.values @ share_PF
        if ask.method == "ig_occlusion":
            values, base, curve = _occlude(prompt, ask, moved, values, rows)
        return GradientAnswer(
            values=values,
            base=base,
            full=full,
            steps=integral.steps,
            evaluations=prompt.passes,
            tokens=prompt.passes * len(ask.ids),
            converged=integral.converged,
            curve=curve,
            seconds=time.perf_counter() - started,
        )


def tokens_of(positions: Sequence[Sequence[int]]) -> tuple[Ids, FloatLF]:
    """Return the tokens of all features, and each one's share in the features [P, F].

    Args:
        positions: Of each feature's tokens; a token of several features is shared equally.

    Raises:
        ValueError: No feature has a token.
    """
    moved = tuple(sorted({place for places in positions for place in places}))
    if not moved:
        raise ValueError("no feature has a token of its own in the prompt: nothing can be moved")
    place = {position: p for p, position in enumerate(moved)}
    share = np.zeros((len(moved), len(positions)))
    for feature, places in enumerate(positions):
        share[[place[position] for position in places], feature] = 1.0
    return moved, share / share.sum(axis=1, keepdims=True)


def _integrate(prompt: EmbeddedPrompt, ask: GradientAsk, change: FloatL, rows: int) -> _Integral:
    """Integrate along the straight line from the baseline, finer until the values are complete."""
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(prompt.values)
    # captum asks for one output's gradient a call; with all of them from one pass forward, as a
    # further dimension behind that of the points, its sums go through unchanged
    method.gradient_func = lambda inputs, **_: (_gradients(prompt, *inputs),)
    bound = np.maximum(RELATIVE_ERROR * np.abs(change), ask.floor)
    steps = ask.steps
    while True:
        found = method.attribute(
            prompt.tokens,
            baselines=prompt.baseline,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=rows,
        )
        values = _numbers(_by_label(found, prompt))
        error = np.abs(change - values.sum(axis=1))
        converged = bool((error <= bound).all())
        if converged or steps >= ask.max_steps:
            return _Integral(values, steps, converged)
        steps = min(2 * steps, ask.max_steps)


def _gradient_x_input(prompt: EmbeddedPrompt) -> FloatLF:
    """Return (x − baseline)·∇F(x) [L, P]."""
    gradients = _gradients(prompt, prompt.tokens.clone().requires_grad_())
    return _by_label(gradients * (prompt.tokens - prompt.baseline), prompt)


def _gradients(prompt: EmbeddedPrompt, points_BPD: torch.Tensor) -> torch.Tensor:
    """Return the gradients [B, L', P, D] of the L explained values, one way back a label.

    Where the second of two values mirrors the first, that of the first alone (L' = 1).
    """
    import torch

    with torch.enable_grad():
        totals = prompt.values(points_BPD).sum(dim=0)
        wanted = 1 if prompt.mirrored else len(totals)
        found = [
            torch.autograd.grad(totals[label], points_BPD, retain_graph=label + 1 < wanted)[0]
            for label in range(wanted)
        ]
    return torch.stack(found, dim=1)


def _by_label(found_1LPD: torch.Tensor, prompt: EmbeddedPrompt) -> FloatLF:
    """Return the attributions of tokens [L, P], summed over the embedding's dimensions."""
    values: FloatLF = found_1LPD.detach()[0].double().sum(dim=-1).cpu().numpy()
    return np.concatenate([values, -values]) if prompt.mirrored else values


def _occlude(
    prompt: EmbeddedPrompt, ask: GradientAsk, moved: Ids, ranked_by: FloatLF, rows: int
) -> _Occlusion:
    """Take features away in the order of |IG|, in parts of equal size, down to zero embeddings.

    A feature's value is its part's drop divided by the part's size.
    """
    n_labels, n_features = ranked_by.shape
    n_parts = min(n_features, ask.occlusion_steps)
    cuts = [round(i * n_features / n_parts) for i in range(n_parts + 1)]
    orders = np.argsort(-np.abs(ranked_by), axis=1, kind="stable")
    place = {position: p for p, position in enumerate(moved)}
    shown = []
    for order in orders:
        for cut in cuts:
            tokens = prompt.tokens.clone()
            gone = [place[p] for feature in order[:cut] for p in ask.positions[feature]]
            tokens[0, gone] = 0.0
            shown.append(tokens)
    along = _numbers(_values(prompt, _stack(shown), rows)).reshape(n_labels, n_parts + 1, n_labels)
    curve = np.stack([along[label, :, label] for label in range(n_labels)])
    values = np.zeros((n_labels, n_features))
    drops = curve[:, :-1] - curve[:, 1:]
    for part, (first, last) in enumerate(pairwise(cuts)):
        for label in range(n_labels):
            values[label, orders[label, first:last]] = drops[label, part] / (last - first)
    return _Occlusion(values, curve[:, -1], curve)


def _numbers(found: FloatCL) -> FloatCL:
    """Return what was found.

    Raises:
        ValueError: Some of it is not a finite number.
    """
    if not np.isfinite(found).all():
        raise ValueError(not_a_number.MESSAGE)
    return found


def _stack(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat(list(parts))


def _values(prompt: EmbeddedPrompt, tokens_BPD: torch.Tensor, rows: int) -> FloatCL:
    """Return the explained values [B, L], so many prompts at a time."""
    import torch

    with torch.no_grad():
        found = [prompt.values(part).cpu() for part in torch.split(tokens_BPD, rows)]
    values: FloatCL = torch.cat(found).numpy()
    return values
