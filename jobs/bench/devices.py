"""On which device both sides of a comparison compute."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelError


def check_same(**devices: str) -> None:
    """Refuse to compare what runs on a GPU with what runs on the CPU.

    Args:
        **devices: `cpu` or `cuda:N` by what is compared.

    Raises:
        ModelError: They are of different kinds.
    """
    if len({device.partition(":")[0] for device in devices.values()}) > 1:
        listed = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ModelError(
            f"a comparison across devices says nothing: {listed}; give --device cpu or --device "
            "cuda, and see that Ray has the GPU"
        )


def on_device(device: str) -> dict[str, Any]:
    """Return the keys of a sweep's `cluster` whose hosts are on a device.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`; which GPU it is, is for Ray to say.
    """
    if device == "auto":
        return {}
    return {"gpus_per_host": 0 if device == "cpu" else 1}
