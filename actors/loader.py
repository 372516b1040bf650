"""A model's tokenizer and weights, ready to use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.offline import OfflineStatus, offline_models
from actors.sources import ModelSource, resolve_model, weights_digest
from engine.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "ChatTemplate",
    "ModelSource",
    "OfflineStatus",
    "TokenizerSpec",
    "choose_device",
    "load_model",
    "load_tokenizer_spec",
    "model_window",
    "offline_models",
    "resolve_model",
    "weights_digest",
]


_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """Messages to text, by the chat template of a tokenizer; can be pickled.

    Attributes:
        tokenizer: The tokenizer that has the template.
    """

    tokenizer: Any

    def __call__(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the rendered conversation, ending where the model's answer begins.

        The text has its special tokens already: encode it without adding any.

        Args:
            messages: Each with `role` and `content`.

        Raises:
            ModelError: The template doesn't take these messages.
        """
        from jinja2 import TemplateError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    tokenize=False,
                    add_generation_prompt=True,
                )
            )
        except TemplateError as error:
            raise ModelError(
                f"the model's chat template refuses these messages: {error}. Many take no system "
                "message, or want user and assistant in turn"
            ) from error


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """What prompts are made with.

    Attributes:
        json: Text of the tokenizer for `engine.tokens.load_tokenizer`.
        chat: Messages -> text, or None where the model has no chat template.
        max_tokens: The model's window, or None where it has no bound.
        before: Ids that the tokenizer puts before a plain text when asked to add special tokens.
        after: Ids that it puts after one; a prompt for a next token must not have them.
    """

    json: str
    chat: ChatTemplate | None
    max_tokens: int | None
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def load_tokenizer_spec(source: ModelSource) -> TokenizerSpec:
    """Return what prompts are made with.

    Raises:
        ModelError: The model has no fast tokenizer.
    """
    if source.kind == "fake":
        from actors.fake_host import MAX_TOKENS

        return TokenizerSpec("bytes", None, MAX_TOKENS)
    from transformers import AutoConfig, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.location, **_LOCAL)
        config = AutoConfig.from_pretrained(source.location, **_LOCAL)
        backend = tokenizer.backend_tokenizer
    except (OSError, ValueError, ImportError, AttributeError, KeyError) as error:
        raise ModelError(
            f"{source.name} has no tokenizer that can be used ({error}): put its tokenizer.json "
            f"into {source.location}"
        ) from error
    plain = tokenizer("a", add_special_tokens=False).input_ids
    full = tokenizer("a", add_special_tokens=True).input_ids
    start = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)
    return TokenizerSpec(
        json=backend.to_str(),
        chat=ChatTemplate(tokenizer) if tokenizer.chat_template else None,
        max_tokens=model_window(config),
        before=tuple(full[:start]),
        after=tuple(full[start + len(plain) :]),
    )


def load_model(
    source: ModelSource, precision: str = "auto", device: str = "auto"
) -> PreTrainedModel:
    """Load a causal language model for reading: evaluation mode, no gradients, no remote code.

    Args:
        source: From `resolve_model`.
        precision: `fp32`, `fp16`, `bf16`, or `auto`: fp32 on a CPU, the checkpoint's own on a GPU.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        ModelError: It can't be loaded, or the device isn't there.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    where = choose_device(device)
    try:
        config = AutoConfig.from_pretrained(source.location, **_LOCAL)
        dtype = _dtype(precision, where, getattr(config, "dtype", None))
        with _quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(
                source.location,
                dtype=dtype,
                attn_implementation=attention_of(config),
                **_LOCAL,
            )
        model.to(where).eval().requires_grad_(False)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{source.name} doesn't fit into the memory of {where}: use precision bf16 or a larger "
            "device"
        ) from error
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        raise ModelError(f"{source.name} can't be loaded as a causal model: {error}") from error
    loaded: PreTrainedModel = model
    return loaded


def attention_of(config: Any) -> str | None:
    """Return the attention a family must be loaded with, or None for transformers' choice.

    torch's fused attention has no cap on the products and transformers leaves it out without a
    word, so families that cap them (Gemma 2) need the attention that is written out.
    """
    capped = getattr(config.get_text_config(decoder=True), "attn_logit_softcapping", None)
    return "eager" if capped else None


def choose_device(device: str) -> str:
    """Return `cpu` or `cuda:N`.

    Raises:
        ModelError: A GPU was asked for and there is none.
    """
    import torch

    if device == "cpu":
        return "cpu"
    if device != "auto" and not device.startswith("cuda"):
        raise ModelError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N")
    if torch.cuda.is_available():
        return "cuda:0" if device in ("auto", "cuda") else device
    if device == "auto":
        return "cpu"
    raise ModelError(f"device {device} was asked for but no GPU is visible here: use device: cpu")


def model_window(config: Any) -> int | None:
    """Return the longest sequence that a model takes, or None where it has no bound."""
    text = config.get_text_config(decoder=True)
    window = getattr(text, "max_position_embeddings", None)
    return int(window) if window and window > 0 else None


def _dtype(precision: str, device: str, own: Any) -> Any:
    import torch

    named = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision in named:
        return named[precision]
    if precision != "auto":
        raise ValueError(f"unknown precision {precision!r}: use {', '.join(named)} or auto")
    if device == "cpu" or own not in (torch.float16, torch.bfloat16):
        return torch.float32
    return own if own != torch.bfloat16 or torch.cuda.is_bf16_supported() else torch.float16


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars while a model loads."""
    from transformers.utils import logging as library

    logging: Any = library
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
