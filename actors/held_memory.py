"""The memory of tensors on devices whose allocator keeps no account, such as a CPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class HeldMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operators return while it is entered.

    What an operator needs for itself and frees before it returns isn't seen.

    Attributes:
        now: Bytes of those that still live.
        peak: The most that lived at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}  # by address; 0 for what was there before

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call an operator and count what it returns."""
        kwargs = kwargs or {}
        for given in tree_leaves((args, kwargs)):
            self._note(given, counted=False)
        found = func(*args, **kwargs)
        for made in tree_leaves(found):
            self._note(made, counted=True)
        self.peak = max(self.peak, self.now)
        return found

    def _note(self, value: Any, counted: bool) -> None:
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            return
        storage = value.untyped_storage()
        address = storage._cdata
        if address in self._sizes:
            return
        size = storage.nbytes() if counted else 0
        self._sizes[address] = size
        self.now += size
        weakref.finalize(storage, self._forget, address)

    def _forget(self, address: int) -> None:
        self.now -= self._sizes.pop(address)
