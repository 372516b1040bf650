"""A causal model as a differentiable function of the embeddings of some of a prompt's tokens."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from actors.batching import Ids
from actors.label_reads import read_plan
from actors.quantized import make_differentiable
from engine.errors import ModelError
from engine.gradients import GradientAsk
from engine.target import LOG_FLOOR, Normaliser
from engine.types import Target

if TYPE_CHECKING:
    import torch

_ROWS_AT_A_TIME = 4096  # of the embedding matrix, for its mean


class EmbeddedModel:
    """Reads and replaces what a model's embedding layer gives.

    All embeddings here are in single precision and as the layer returns them, scaling included.

    Args:
        model: A loaded causal model.

    Raises:
        ModelError: The family takes no embeddings in place of token ids, or answers otherwise to
            them.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        name = type(model).__name__
        takes = inspect.signature(model.forward).parameters
        self._layer = model.get_input_embeddings()
        if self._layer is None or "inputs_embeds" not in takes:
            raise ModelError(
                f"{name} takes no input embeddings, so there is nothing to differentiate by: use "
                "an explainer that removes words"
            )
        self._keeps = "logits_to_keep" in takes
        self._mean: torch.Tensor | None = None
        make_differentiable(model)
        gap = self._gap_to_ids()
        if not gap <= 0.01:
            raise ModelError(
                f"{name} answers otherwise to embeddings than to the token ids they stand for "
                f"(logits {gap:.2g} of their spread apart): use an explainer that removes words"
            )
        if not self._reaches_the_first_token():
            raise ModelError(
                f"no gradient of {name}'s answer reaches the first token: one of its layers runs "
                "on a kernel that can't be differentiated; use another precision or device, or an "
                "explainer that removes words"
            )

    def embed(self, ids: Ids) -> torch.Tensor:
        """Return the embeddings [T, D] of T tokens."""
        import torch

        with torch.no_grad():
            row = torch.tensor([ids], dtype=torch.long, device=self._layer.weight.device)
            embeddings: torch.Tensor = self._layer(row)[0].float()
        return embeddings

    def baseline(self, ask: GradientAsk) -> torch.Tensor:
        """Return the embedding [D] that stands for "no token".

        Raises:
            ValueError: `pad`, and the model has no padding token.
        """
        if ask.baseline == "zero":
            return self.embed((0,))[0] * 0.0
        if ask.baseline == "mask":
            return self.embed(ask.baseline_ids).mean(dim=0)
        if ask.baseline == "pad":
            pad = self.model.config.get_text_config(decoder=True).pad_token_id
            if pad is None or not 0 <= pad < self._layer.weight.shape[0]:
                raise ValueError(
                    f"{type(self.model).__name__} names no padding token: use baseline mean"
                )
            return self.embed((pad,))[0]
        if self._mean is None:
            self._mean = self._vocabulary_mean()
        return self._mean

    def label_log_probs(self, embeddings_BTD: torch.Tensor, label_ids: tuple[Ids, ...]) -> Any:
        """Return the log-probabilities [B, L] of the label strings after B prompts of T tokens.

        Sums over a label's tokens, under the full vocabulary, as `actors.label_scorer` gives them.
        """
        import torch

        plan = read_plan(label_ids)
        n_rows, length, _ = embeddings_BTD.shape
        longest = max(map(len, plan.continuations))
        # what follows a continuation that is shorter than the longest is read by nobody
        rows = [
            torch.cat([embeddings_BTD, self._tail(cont, longest).expand(n_rows, -1, -1)], dim=1)
            for cont in plan.continuations
        ]
        depths = sorted({depth for _, depth in plan.slots})
        kept = torch.tensor([length - 1 + depth for depth in depths], device=embeddings_BTD.device)
        logits = self._logits(torch.cat(rows), kept)  # [K·B, kept, V]
        by_slot = [
            logits[cont * n_rows : (cont + 1) * n_rows, depths.index(depth)]
            for cont, depth in plan.slots
        ]
        picked = [
            part[:, plan.tokens].double() - part.double().logsumexp(dim=-1, keepdim=True)
            for part in by_slot
        ]
        return torch.stack(
            [sum(picked[slot][:, token] for slot, token in reads) for reads in plan.reads], dim=1
        )

    def _tail(self, cont: Ids, longest: int) -> torch.Tensor:
        return self.embed((cont + (0,) * longest)[:longest])

    def _logits(self, embeddings_BTD: torch.Tensor, kept: torch.Tensor) -> Any:
        import torch

        inputs = embeddings_BTD.to(self._layer.weight.dtype)
        mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        extra = {"logits_to_keep": kept} if self._keeps else {}
        logits = self.model(
            inputs_embeds=inputs, attention_mask=mask, use_cache=False, **extra
        ).logits
        return logits if self._keeps else logits[:, kept]

    def _vocabulary_mean(self) -> torch.Tensor:
        n_tokens = len(self._layer.weight)
        total = self.embed((0,))[0].double() * 0.0
        for start in range(0, n_tokens, _ROWS_AT_A_TIME):
            ids = tuple(range(start, min(start + _ROWS_AT_A_TIME, n_tokens)))
            total += self.embed(ids).double().sum(dim=0)
        mean: torch.Tensor = (total / n_tokens).float()
        return mean

    def _gap_to_ids(self) -> float:
        """Return how far apart the answers to ids and to their embeddings are, of their spread."""
        import torch

        ids = self._probe()
        with torch.no_grad():
            row = torch.tensor([ids], dtype=torch.long, device=self._layer.weight.device)
            expected = self.model(input_ids=row, use_cache=False).logits[0, -1].float()
            last = torch.tensor([len(ids) - 1], device=row.device)
            found = self._logits(self.embed(ids)[None], last)[0, -1].float()
        spread = float(expected.max() - expected.min()) or 1.0
        return float((found - expected).abs().max()) / spread

    def _reaches_the_first_token(self) -> bool:
        import torch

        with torch.enable_grad():
            points = self.embed(self._probe())[None].requires_grad_()
            answer = self.label_log_probs(points, ((0,),)).sum()
            (gradient,) = torch.autograd.grad(answer, points, allow_unused=True)
        return gradient is not None and bool(gradient[0, 0].any() and gradient.isfinite().all())

    def _probe(self) -> Ids:
        """Return a few tokens, spread over the vocabulary."""
        n_tokens = self._layer.weight.shape[0]
        return tuple((7919 * i + 13) % n_tokens for i in range(6))


class EmbeddedPrompt:
    """The explained values of one prompt while some of its tokens' embeddings move.

    Args:
        model: The model.
        ask: Says what is explained.
        label_ids: Token ids of each of the L labels.
        moved: Positions of the P tokens that move.

    Attributes:
        tokens: Embeddings of the moved tokens [1, P, D].
        baseline: What they move from [1, P, D].
        passes: Prompts that went through the model so far, a label's continuations not counted.
        mirrored: Whether there are two labels and the value of one falls as the other's rises, so
            that one gradient is both.
    """

    def __init__(
        self, model: EmbeddedModel, ask: GradientAsk, label_ids: tuple[Ids, ...], moved: Ids
    ) -> None:
        import torch

        self._model = model
        self._ask = ask
        self._label_ids = label_ids
        self._prompt = model.embed(ask.ids)[None]
        self._moved = torch.tensor(moved, device=self._prompt.device)
        self.tokens = self._prompt[:, self._moved]
        self.baseline = model.baseline(ask).expand_as(self.tokens).contiguous()
        self.passes = 0
        sums_to_one = ask.normaliser == "labels" or ask.calibration is not None
        self.mirrored = len(label_ids) == 2 and (
            ask.target == "log_odds" or (ask.target == "probability" and sums_to_one)
        )

    def values(self, tokens_BPD: torch.Tensor) -> torch.Tensor:
        """Return the explained values [B, L] with these embeddings in the moved tokens' places."""
        n_rows = len(tokens_BPD)
        self.passes += n_rows
        whole = self._prompt.expand(n_rows, -1, -1).index_copy(1, self._moved, tokens_BPD)
        log_probs = self._model.label_log_probs(whole, self._label_ids)
        return explained(log_probs, self._ask.target, self._ask.normaliser, self._ask.calibration)


def explained(
    log_probs_BL: torch.Tensor,
    target: Target,
    normaliser: Normaliser,
    calibration: tuple[float, ...] | None,
) -> torch.Tensor:
    """Return the explained values [B, L]; `engine.target.transform` for tensors.

    Raises:
        ValueError: `log_odds` of a single label.
    """
    import torch

    if calibration is not None:
        shift = torch.tensor(calibration, dtype=log_probs_BL.dtype, device=log_probs_BL.device)
        log_probs_BL = (log_probs_BL - shift).log_softmax(dim=1)
    lowest = log_probs_BL.amax(dim=1, keepdim=True) + LOG_FLOOR
    clipped = torch.maximum(log_probs_BL, lowest)
    if target == "log_odds":
        n_labels = clipped.shape[1]
        if n_labels < 2:
            raise ValueError("log_odds needs at least two labels: use target: logprob")
        others = [[k for k in range(n_labels) if k != label] for label in range(n_labels)]
        rest = torch.stack([clipped[:, rows].logsumexp(dim=1) for rows in others], dim=1)
        return clipped - rest
    scaled = clipped.log_softmax(dim=1) if normaliser == "labels" else clipped
    return scaled.exp() if target == "probability" else scaled
