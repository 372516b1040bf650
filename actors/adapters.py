"""LoRA adapters that are switched on and off on one loaded base."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actors.adapter_files import AdapterFiles, read_adapter
from actors.adapter_layers import AdapterLayers
from actors.backend import SwapCounts
from actors.canary import SAME, Canary, Reading, gap
from engine.errors import AdapterError, ModelError

if TYPE_CHECKING:
    from torch import nn

BASE = ""
"""The base, its adapters off, among digests of adapters."""

ADAPTERS_KEPT = 8
"""Adapters that stay in a host's memory."""

ADAPTER_BYTES = 2 << 30
"""Bytes they may take together; the one that is on may take more."""


class AdapterPool:
    """Several adapters resident on a base, at most one of them on; the base is never copied.

    After every switch a canary is read. The first reading of an adapter must differ from the
    base's; every later one must equal the first, even if the adapter was dropped and loaded again
    meanwhile. So must the base's, whenever the adapters are off again.

    Args:
        model: A loaded causal language model; its modules are wrapped in place, so nothing that
            keeps hold of its layers may have been built on it yet.
        vocabulary: Number of token ids it takes.
        folders: Digest -> folder of every adapter that may be asked for.
        kept: Most adapters in memory.
        most_bytes: Most bytes they take; one is kept whatever it takes.
        tolerance: How far a mixed batch may lie from single ones, in log-probability.
    """

    def __init__(
        self,
        model: Any,
        vocabulary: int,
        folders: Mapping[str, str],
        kept: int = ADAPTERS_KEPT,
        most_bytes: int = ADAPTER_BYTES,
        tolerance: float = 1e-3,
    ) -> None:
        self._layers = AdapterLayers(model)
        self._canary = Canary(model, vocabulary)
        self._kept = kept
        self._most_bytes = most_bytes
        self._tolerance = tolerance
        self._files: dict[str, AdapterFiles] = {}
        self._refused: dict[str, ModelError] = {}
        self._resident: dict[str, None] = {}  # the last used one is the last
        self._readings: dict[str, Reading] = {}
        self._on: str | None = BASE  # None: whatever is asked for is a switch
        self._unmixed = ""  # why mixed batches can't be had
        self.counts = SwapCounts()
        for digest, folder in folders.items():
            try:
                self._files[digest] = self._wrap(digest, folder)
            except ModelError as error:  # its own units fail, not the host
                self._refused[digest] = error
        self._layers.off()

    @property
    def unpacked(self) -> set[nn.Module]:
        """Layers whose weights an adapter reads, so that they must stay as they are."""
        return self._layers.unpacked

    @property
    def resident(self) -> tuple[str, ...]:
        """Adapters in memory, the last used one last."""
        return tuple(self._resident)

    def check(self, adapter: str) -> None:
        """Raise ModelError if an adapter can't be served."""
        if refused := self._refused.get(adapter):
            raise type(refused)(str(refused))
        if adapter != BASE and adapter not in self._files:
            raise ModelError(
                f"this host was not told of the adapter {adapter[:12]}: start it with all that are "
                "asked for"
            )

    def start(self) -> None:
        """Take the base's reading, once its layers are what they will be."""
        self._readings[BASE] = self._canary.read()[0]

    def use(self, adapter: str) -> None:
        """Switch an adapter on, or all off.

        Args:
            adapter: Its digest, or "" for the base.

        Raises:
            ModelError: It can't be served or loaded.
            AdapterError: It has no effect, or it or the base reads otherwise than at first. An
                adapter is then dropped, to be loaded again by who asks next.
        """
        if adapter == self._on:
            return
        self.check(adapter)
        started = time.perf_counter()
        self._on = None
        try:
            self._switch(adapter)
            self._verify(adapter)
        finally:
            seconds = self.counts.swap_seconds + time.perf_counter() - started
            self.counts = self.counts._replace(swaps=self.counts.swaps + 1, swap_seconds=seconds)
        self._on = adapter

    @contextmanager
    def mixing(self, rows: Sequence[str]) -> Iterator[None]:
        """Let the rows of the batches that follow each have an adapter of their own.

        Args:
            rows: Digest of each row of a batch, "" for the base.

        Raises:
            ModelError: An adapter can't be loaded, more are asked for than are kept, or a mixed
                batch of this model differs from single ones.
        """
        wanted = [adapter for adapter in dict.fromkeys(rows) if adapter != BASE]
        for adapter in wanted:
            if adapter in self._resident:
                self._touch(adapter)
            else:
                self.use(adapter)
        if not set(wanted) <= set(self._resident):
            raise ModelError(
                f"{len(wanted)} adapters in one batch don't fit in memory together: raise the "
                "host's adapters_kept or adapter_bytes"
            )
        reason = self._unmixed
        if any(self._files[adapter].config.get("use_dora") for adapter in wanted):
            reason = "DoRA can't be mixed"
        if reason:
            raise ModelError(f"no mixed batches with these adapters ({reason}): ask one by one")
        self._on = None
        with self._layers.mixed(rows):
            yield

    def _wrap(self, digest: str, folder: str) -> AdapterFiles:
        files = read_adapter(folder)
        if files.digest != digest:
            raise ModelError(
                f"adapter {folder!r} has other weights ({files.digest[:12]}) than when the sweep "
                f"was planned ({digest[:12]}): plan again, or put the old files back"
            )
        self._layers.wrap(files, digest)
        return files

    def _touch(self, adapter: str) -> None:
        self._resident.pop(adapter)
        self._resident[adapter] = None

    def _switch(self, adapter: str) -> None:
        if adapter == BASE:
            self._layers.off()
            return
        if adapter in self._resident:
            self._touch(adapter)
        else:
            files = self._files[adapter]
            while self._resident and not self._has_room(files.nbytes):
                self._drop(next(iter(self._resident)))
            self._layers.load(files, adapter)
            self._resident[adapter] = None
            self.counts = self.counts._replace(adapter_loads=self.counts.adapter_loads + 1)
        self._layers.on(adapter)

    def _has_room(self, nbytes: int) -> bool:
        taken = sum(self._files[adapter].nbytes for adapter in self._resident)
        return len(self._resident) < self._kept and taken + nbytes <= self._most_bytes

    def _drop(self, adapter: str) -> None:
        self._layers.delete(adapter)
        del self._resident[adapter]

    def _verify(self, adapter: str) -> None:
        """Compare the canary with its first reading and with the base's."""
        found, base = self._canary.read()[0], self._readings[BASE]
        if adapter != BASE:
            try:
                self._verify_adapter(adapter, found, base)
            except AdapterError as error:
                self._drop(adapter)
                if adapter not in self._readings:  # nor will its files read otherwise next time
                    self._refused[adapter] = error
                raise
        elif (apart := gap(found, base)) > SAME:
            raise AdapterError(
                f"with all adapters off the base reads {apart:.2g} otherwise than at first: its "
                "weights were changed in this process, and nothing it says can be trusted"
            )

    def _verify_adapter(self, adapter: str, found: Reading, base: Reading) -> None:
        name = f"adapter {str(self._files[adapter].folder)!r}"
        effect = gap(found, base)
        if effect == float("inf"):
            raise AdapterError(f"{name} makes the model answer NaN: its weights are broken")
        if effect <= SAME:
            raise AdapterError(
                f"{name} has no effect: the canary prompt reads as the base does, to {effect:.2g}. "
                "It was never trained (lora_B is zero), its scale is zero, its target modules are "
                "none that the answer depends on, or the base's number format rounds it away"
            )
        first = self._readings.get(adapter)
        if first is None:
            self._readings[adapter] = found
            self._try_mixed(adapter)
        elif (apart := gap(found, first)) > SAME:
            raise AdapterError(
                f"{name} reads {apart:.2g} otherwise than when it was first loaded: its weights or "
                "the base's were changed in this process; it is loaded again for who asks next"
            )

    def _try_mixed(self, newest: str) -> None:
        """Read the canary under every resident adapter in one batch, beside the base."""
        mixable = [a for a in self._resident if not self._files[a].config.get("use_dora")]
        if newest not in mixable or self._unmixed:
            return
        rows = [BASE, *(adapter for adapter in mixable if adapter in self._readings)]
        try:
            with self._layers.mixed(rows):
                found = self._canary.read(len(rows))
        except (ValueError, RuntimeError, TypeError, LookupError) as error:
            # layers that are given other rows than the batch's, such as experts
            self._unmixed = f"{type(error).__name__}: {error}"
        else:
            apart = max(gap(f, self._readings[row]) for f, row in zip(found, rows, strict=True))
            if not apart <= self._tolerance:
                self._unmixed = f"the canary reads {apart:.2g} otherwise in one"
        self._layers.on(newest)
