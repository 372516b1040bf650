"""How much memory a model takes, reckoned before it is loaded, and how much a device has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from actors.precision import FOUR_BITS, check_precision, quantized_by, resolve_precision
from actors.quantized import exact_linears
from engine.errors import TooLargeError

WORKING_BYTES = 1 << 30
"""What a host takes beside the weights: libraries, one batch's states and logits. SmolLM2-135M on a
CPU took 0.9 GB (docs/models.md); wide models and long texts take more."""

_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0}
_FOUR_BIT_BYTES = 0.5
_SCALES = {True: 1 / 64 + 4 / (64 * 256), False: 4 / 64}
"""Bytes of scales a 4-bit weight, quantized twice or once: one for 64 weights, in one byte with a
second scale for 256 of them, or in four (Dettmers et al. 2023, section 3)."""


class WeightCount(NamedTuple):
    """Numbers of weights, those that modules share counted once.

    Attributes:
        total: All of them.
        linear: Those of the linear layers that bitsandbytes quantizes; the output matrix and
            experts kept as one tensor are none.
    """

    total: int
    linear: int


class MemoryNeed(NamedTuple):
    """What a model will take.

    Attributes:
        precision: `auto` decided; the method of a checkpoint that is quantized already.
        weights: Number of weights.
        weight_bytes: Bytes of the weights.
        working_bytes: Bytes beside them.
    """

    precision: str
    weights: int
    weight_bytes: int
    working_bytes: int = WORKING_BYTES

    @property
    def total(self) -> int:
        """All bytes."""
        return self.weight_bytes + self.working_bytes

    def __str__(self) -> str:
        each = self.weight_bytes / max(self.weights, 1)
        return (
            f"{self.weights / 1e6:,.0f} million weights × {each:.2f} bytes in {self.precision} = "
            f"{_gigabytes(self.weight_bytes)}, and {_gigabytes(self.working_bytes)} to work with"
        )


def count_weights(config: Any) -> WeightCount:
    """Return the weights of the causal model of a transformers configuration; none are made.

    Raises:
        ValueError: The configuration is of no causal language model.
    """
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"), exact_linears(config):
        make: Any = AutoModelForCausalLM.from_config
        model: Any = make(config)
    head = model.get_output_embeddings()
    users: dict[int, int] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            users[id(weight)] = users.get(id(weight), 0) + 1
    linear = sum(
        module.weight.numel()
        for module in model.modules()
        if (type(module) is nn.Linear or isinstance(module, Conv1D))
        and module is not head
        and users[id(module.weight)] == 1
    )
    return WeightCount(sum(p.numel() for p in model.parameters()), linear)


def weight_bytes(count: WeightCount, precision: str, device: str, double_quant: bool = True) -> int:
    """Return the bytes of so many weights.

    Args:
        count: Of the model.
        precision: Not `auto`.
        device: What isn't quantized is in fp32 on `cpu`, in 2 bytes elsewhere.
        double_quant: Whether the scales of 4-bit weights are quantized.
    """
    if precision not in (*FOUR_BITS, "int8"):
        return int(count.total * _BYTES[precision])
    rest = _BYTES["fp32" if device == "cpu" else resolve_precision("auto", device)]
    each = _FOUR_BIT_BYTES + _SCALES[double_quant] if precision in FOUR_BITS else _BYTES["int8"]
    return int(count.linear * each + (count.total - count.linear) * rest)


def memory_need(
    config: Any, folder: str, precision: str, device: str, double_quant: bool = True
) -> MemoryNeed:
    """Return what a model will take on a device.

    Args:
        config: Its transformers configuration.
        folder: Its files, whose sizes count where they are quantized already.
        precision: As configured.
        device: `cpu` or `cuda:N`.
        double_quant: Whether the scales of 4-bit weights are quantized.

    Raises:
        ValueError: The configuration is of no causal language model.
        ModelError: There is no such precision, or the checkpoint is quantized in another.
    """
    own = quantized_by(config)
    check_precision(precision, own)
    count = count_weights(config)
    if own is not None:
        files = sorted(Path(folder).glob("*.safetensors"))
        return MemoryNeed(own, count.total, sum(file.stat().st_size for file in files))
    resolved = resolve_precision(precision, device)
    size = weight_bytes(count, resolved, device, double_quant)
    return MemoryNeed(resolved, count.total, size)


def device_memory(device: str) -> int:
    """Return the bytes that are free for a new model: of a GPU all, of a machine what is available.

    On a machine the limits of its control groups count, such as those of a Slurm job.
    """
    if device != "cpu":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return min([int(psutil.virtual_memory().available), *_group_rooms(Path("/"))])


def check_fits(name: str, need: MemoryNeed, device: str, hosts: int = 1) -> None:
    """Refuse a model that is too large for its device.

    Args:
        name: Of the model, for the message.
        need: What it takes.
        device: `cpu` or `cuda:N`.
        hosts: Copies of it that share the device.

    Raises:
        TooLargeError: With the arithmetic.
    """
    room = device_memory(device)
    if hosts * need.total <= room:
        return
    copies = f", {hosts} times ({hosts} hosts)" if hosts > 1 else ""
    where = "this machine has" if device == "cpu" else f"{device} has"
    free = "available" if device == "cpu" else "in all"
    raise TooLargeError(
        f"{name} is too large: {need}{copies}, is {_gigabytes(hosts * need.total)}; {where} "
        f"{_gigabytes(room)} {free}. Use a smaller precision (nf4), fewer hosts or a larger device"
    )


def _group_rooms(root: Path) -> list[int]:
    """Return what each memory control group of this process (version 2) has left of its limit.

    Args:
        root: Folder that `proc` and `sys` lie in.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    inner = next((line[3:] for line in lines if line.startswith("0::")), None)
    if inner is None:
        return []
    top = root / "sys/fs/cgroup"
    group = top / inner.lstrip("/")
    rooms = []
    for folder in (group, *group.parents):
        if not folder.is_relative_to(top):
            break
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
            kept = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue  # the root group has no limit, and no such file
        if limit != "max":
            rooms.append(max(0, int(limit) - used + int(kept.get("inactive_file", 0))))
    return rooms


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
