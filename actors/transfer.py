"""Arrays of this process as tensors of a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch


def on_device(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return an array as a tensor of a device; on a CPU it may share the array's memory.

    A copy to a GPU goes through pinned memory and isn't waited for, so that the next arrays are
    made meanwhile; what runs on the same stream afterwards finds it there. Not measured on a GPU.

    Args:
        array: Of any shape and number type.
        device: Of the model.
    """
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
