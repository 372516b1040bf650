"""What a precision's name means on a device: number formats, quantization, what a model weighs.

`auto` is bf16 where the device computes in it natively, else fp16 on a GPU, else fp32. The products
of quantized layers follow the same rule.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import ModelError

if TYPE_CHECKING:
    import torch

FLOATS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Precision -> torch's name of the number format."""

FOUR_BITS = ("nf4", "fp4")
QUANTIZED = (*FOUR_BITS, "int8")
"""Precisions that quantize the linear layers by bitsandbytes."""


class Loading(NamedTuple):
    """How a checkpoint is loaded.

    Attributes:
        dtype: Number format of all that isn't quantized; `"auto"` for the checkpoint's own.
        quantization: transformers' configuration of it, or None.
    """

    dtype: Any
    quantization: Any = None


def resolve_precision(precision: str, device: str) -> str:
    """Return a precision with `auto` decided for a device: `cpu`, `cuda:N`."""
    if precision != "auto":
        return precision
    if computes_in_bf16(device):
        return "bf16"
    return "fp32" if device == "cpu" else "fp16"


def computes_in_bf16(device: str) -> bool:
    """Return whether a device multiplies in bf16 natively.

    Not where torch or the CPU's kernels only emulate it, as on V100 and T4.
    """
    import torch

    if device == "cpu":
        found = torch.backends.cpu.get_cpu_capability()
        cpu: Any = torch.cpu
        return found.startswith("AVX512") and bool(
            cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
        )
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def loading(precision: str, device: str, own: str | None, double_quant: bool) -> Loading:
    """Return how to load a checkpoint in a precision.

    Args:
        precision: `auto`, or one of `FLOATS` and `QUANTIZED`.
        device: `cpu` or `cuda:N`.
        own: Method of a checkpoint that is quantized already; see `quantized_by`.
        double_quant: Quantize the scales of 4-bit weights too.

    Raises:
        ModelError: There is no such precision, or the checkpoint is quantized in another.
    """
    import torch

    check_precision(precision, own)
    if own is not None:
        return Loading("auto")
    precision = resolve_precision(precision, device)
    if precision in FLOATS:
        return Loading(getattr(torch, FLOATS[precision]))
    from transformers import BitsAndBytesConfig

    products = getattr(torch, FLOATS[resolve_precision("auto", device)])
    # On a CPU the rest costs little in fp32, and is where what is scored together shows most: with
    # nf4 products in bf16 the log-odds of a prompt moved by up to 0.25 beside a rest in bf16, by
    # 0.05 beside one in fp32 (docs/models.md).
    rest = torch.float32 if device == "cpu" else products
    if precision == "int8":
        # the threshold of the paper picks outlying columns by the whole batch: what a prompt's
        # answer is would depend on what is scored beside it
        eight = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)  # type: ignore[no-untyped-call]
        return Loading(rest, eight)
    four = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type=precision,
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=products,
    )
    return Loading(rest, four)


def check_precision(precision: str, own: str | None) -> None:
    """Refuse what a checkpoint can't be loaded in.

    Raises:
        ModelError: There is no such precision, or the checkpoint is quantized in another.
    """
    names = ("auto", *FLOATS, *QUANTIZED)
    if precision not in names:
        raise ModelError(f"unknown precision {precision!r}: use {', '.join(names)}")
    if own is not None and precision != "auto":
        raise ModelError(
            f"its checkpoint is quantized already ({own}) and loads as it is: set precision: auto, "
            f"or name a checkpoint in full precision to have it in {precision}"
        )


def quantized_by(config: Any) -> str | None:
    """Return the method of a checkpoint that is quantized already, such as `gptq`; else None.

    Args:
        config: A transformers configuration, or the mapping of a config.json.
    """
    found = (
        config.get("quantization_config")
        if isinstance(config, dict)
        else getattr(config, "quantization_config", None)
    )
    if not found:
        return None
    fields = found if isinstance(found, dict) else found.to_dict()
    method = getattr(fields.get("quant_method"), "value", fields.get("quant_method"))
    if method in (None, "bitsandbytes"):
        return "int8" if fields.get("load_in_8bit") else str(fields.get("bnb_4bit_quant_type"))
    return str(method)


def precision_of(model: Any) -> str:
    """Return the precision that a loaded model is in, `auto` decided."""
    own = quantized_by(model.config)
    if own is not None:
        return own
    named = str(model.dtype).removeprefix("torch.")
    return next((short for short, long in FLOATS.items() if long == named), named)


def footprint(model: Any) -> int:
    """Return the bytes of a model's weights and buffers, scales of quantized layers included.

    What two modules share counts once.
    """
    sizes: dict[int, int] = {}
    for tensor in (*model.parameters(), *model.buffers(), *_scales(model)):
        sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    return sum(sizes.values())


def _scales(model: Any) -> list[torch.Tensor]:
    """Return what bitsandbytes keeps beside its weights and is neither weight nor buffer."""
    import torch

    found: list[Any] = []
    for module in model.modules():
        four = getattr(getattr(module, "weight", None), "quant_state", None)
        if four is not None:
            second = getattr(four, "state2", None)
            found += [four.absmax, four.code, getattr(four, "offset", None)]
            found += [getattr(second, "absmax", None), getattr(second, "code", None)]
        for holder in (getattr(module, "state", None), getattr(module, "weight", None)):
            found.append(getattr(holder, "SCB", None))
    return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]


def silence_bitsandbytes() -> None:
    """Keep bitsandbytes from logging a line for every int8 layer of every pass, and at import."""
    for name in ("autograd._functions", "backends.cpu.ops"):
        logging.getLogger(f"bitsandbytes.{name}").setLevel(logging.ERROR)
