"""A model's tokenizer and weights, ready to use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.memory_need import MemoryNeed, check_fits, memory_need
from actors.offline import OfflineStatus, offline_models
from actors.precision import FLOATS, loading, quantized_by, silence_bitsandbytes
from actors.quantized import (
    count_quantized,
    exact_linears,
    keep_packed,
    make_packable,
    take_any_input,
    unquantized,
)
from actors.sources import ModelSource, resolve_model, weights_digest
from engine.errors import ModelError, TooLargeError

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
    source: ModelSource, precision: str = "fp32", device: str = "auto", double_quant: bool = True
) -> PreTrainedModel:
    """Load a causal language model for reading: evaluation mode, no gradients, no remote code.

    Args:
        source: From `resolve_model`.
        precision: `fp32`, `fp16`, `bf16`; `nf4`, `fp4`, `int8` (bitsandbytes, on CPUs too); or
            `auto`: the device's best, or the checkpoint's own where it is quantized already.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        double_quant: Quantize the scales of 4-bit weights too.

    Raises:
        ModelError: It can't be loaded or is too large, or the device isn't there.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    where = choose_device(device)
    silence_bitsandbytes()
    need = need_of(source, precision, where, double_quant)
    try:
        config = AutoConfig.from_pretrained(source.location, **_LOCAL)
        how = loading(precision, where, quantized_by(config), double_quant)
    except ModelError as error:
        raise ModelError(f"{source.name}: {error}") from error
    check_fits(source.name, need, where)
    quantized = need.precision not in FLOATS
    # quantized layers are made while they load, and may not be moved afterwards
    extra: dict[str, Any] = {"device_map": {"": where}} if quantized else {}
    if how.quantization is not None:
        how.quantization.llm_int8_skip_modules = unquantized(config)
        extra["quantization_config"] = how.quantization
    try:
        with _quiet(), exact_linears(config) if quantized else contextlib.nullcontext():
            model: Any = AutoModelForCausalLM.from_pretrained(
                source.location,
                dtype=how.dtype,
                attn_implementation=attention_of(config),
                **extra,
                **_LOCAL,
            )
        if not quantized:
            model.to(where)
        model.eval().requires_grad_(False)
    except torch.OutOfMemoryError as error:
        raise TooLargeError(
            f"{source.name} doesn't fit into what {where} has free: use a smaller precision (nf4) "
            "or a larger device"
        ) from error
    except ImportError as error:
        raise ModelError(
            f"{source.name} needs a package that isn't installed: {_in_a_line(error)}"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{source.name} can't be loaded as a causal model: {_in_a_line(error)}"
        ) from error
    if how.quantization is not None and not count_quantized(model):
        raise ModelError(
            f"bitsandbytes finds no layer of {source.name} to quantize: use bf16, fp16 or fp32"
        )
    make_packable(model)
    keep_packed(model)
    take_any_input(model)
    loaded: PreTrainedModel = model
    return loaded


def need_of(
    source: ModelSource, precision: str, device: str, double_quant: bool = True
) -> MemoryNeed:
    """Return what a model will take on a device.

    Raises:
        ModelError: It is no causal model.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.location, **_LOCAL)
        return memory_need(config, source.location, precision, device, double_quant)
    except ModelError as error:
        raise ModelError(f"{source.name}: {error}") from error
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ModelError(f"{source.name} is no causal model: {_in_a_line(error)}") from error


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())


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
