"""What a user of lime, shap or captum writes: texts in, padded batches through the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.context import StepContext

BATCH = 32


class PlainPredict:
    """Texts -> probabilities of the labels, by batches of 32 in their order of arrival.

    Args:
        location: Folder of the model.
        context: Of a pair: its template and labels, each of one token.
        threads: Of torch, in the calling thread.
        device: As of a host.

    Attributes:
        device: `cpu` or `cuda:N`.
        evaluations: Texts that went through the model.

    Raises:
        ValueError: A label has several tokens.
        ModelError: The device isn't there.
    """

    def __init__(
        self, location: str, context: StepContext, threads: int, device: str = "auto"
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from actors.loader import choose_device

        if any(len(ids) != 1 for ids in context.labels.token_ids):
            raise ValueError("the plain loop reads labels of one token")
        torch.set_num_threads(threads)
        self._context = context
        self._labels = [ids[0] for ids in context.labels.token_ids]
        self._tokenizer: Any = AutoTokenizer.from_pretrained(location, padding_side="left")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self.device = choose_device(device)
        # in evaluation mode from the start
        model: Any = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32)
        self._model = model.to(self.device)
        self.evaluations = 0

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return the probabilities [n, L], normalised over the labels."""
        template = self._context.template
        prompts = [template.render({template.variables[0]: str(text)}) for text in texts]
        self.evaluations += len(prompts)
        batches = [self._batch(prompts[i : i + BATCH]) for i in range(0, len(prompts), BATCH)]
        return np.concatenate(batches)

    def _batch(self, prompts: list[str]) -> npt.NDArray[np.float64]:
        import torch

        encoded = self._tokenizer(
            prompts,
            return_tensors="pt",
            padding=True,
            add_special_tokens=self._context.template.add_special_tokens,
        ).to(self.device)
        with torch.inference_mode():
            logits = self._model(**encoded, logits_to_keep=1).logits[:, -1, self._labels]
        return torch.softmax(logits.double(), dim=1).cpu().numpy()
