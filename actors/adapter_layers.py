"""peft's layers on a loaded base: adapters come, go, and are switched on and off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actors.adapter_checks import PREFIX, own_tensor
from actors.adapter_files import WEIGHTS, AdapterFiles
from engine.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn

_NO_ADAPTER = "__base__"  # peft's name of the base in a mixed batch


class AdapterLayers:
    """The wrapped layers of one model.

    A layer is wrapped once, for all adapters that change it, before anything else is built on the
    model. From then on only small matrices come and go, whatever the layer inside its wrapper has
    become by then; nothing is ever merged into it.

    Args:
        model: A loaded causal language model; its modules are wrapped in place.

    Attributes:
        unpacked: Layers whose weights an adapter reads (DoRA), so that they must stay as they are.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._peft: Any = None
        self.unpacked: set[nn.Module] = set()

    def wrap(self, files: AdapterFiles, adapter: str) -> None:
        """Wrap the layers that an adapter changes.

        Raises:
            ModelError: The model has not the layers, or the file brings other tensors.
        """
        from peft import LoraConfig, PeftModel

        with _explained(files):
            self._refuse_other_tensors(files)
            config = _config(files, LoraConfig)
            if self._peft is None:
                self._peft = PeftModel(self._model, config, adapter, low_cpu_mem_usage=True)
            else:
                self._peft.add_adapter(adapter, config, low_cpu_mem_usage=True)
            if config.use_dora:
                wrapped = [w for _, w in self._wrappers() if adapter in w.lora_magnitude_vector]
                self.unpacked |= {wrapper.get_base_layer() for wrapper in wrapped}
            self.delete(adapter)

    def load(self, files: AdapterFiles, adapter: str) -> None:
        """Bring an adapter's matrices in from its file; all are off afterwards.

        Raises:
            ModelError: The file and its configuration or the base don't belong together.
        """
        from peft import LoraConfig
        from safetensors.torch import load_file

        self.off()
        with _explained(files):
            stored = load_file(files.folder / WEIGHTS, device=str(self._model.device))
            self._peft.add_adapter(adapter, _config(files, LoraConfig), low_cpu_mem_usage=True)
            try:
                self._fill(stored, adapter)
            except ValueError:
                self.delete(adapter)
                raise
        self._peft.eval()
        self.off()

    def _fill(self, stored: Mapping[str, torch.Tensor], adapter: str) -> None:
        """Put an adapter's matrices into the wrappers.

        Not by peft's own function: that asks the model for its state, upon which bitsandbytes
        lays packed 4-bit layers back, and rounds the scales of a doubly quantized one again.

        Raises:
            ValueError: They don't fit.
        """
        from torch import nn

        wrappers = dict(self._wrappers())
        for name, tensor in stored.items():
            place = own_tensor(name)
            if place is None:
                continue
            slots = getattr(wrappers.get(place.module), place.part, {})
            if adapter not in slots:
                raise ValueError(f"it has {name}, for which there is no layer")
            # in single precision, as peft keeps what it loads itself
            value = nn.Parameter(tensor.float(), requires_grad=False)
            slot = slots[adapter]
            old = slot if isinstance(slot, nn.Parameter) else getattr(slot, place.field, None)
            if old is None or old.shape != value.shape:
                wanted = "none" if old is None else list(old.shape)
                raise ValueError(f"{name} has the shape {list(value.shape)}, wanted is {wanted}")
            if slot is old:
                slots[adapter] = value
            else:
                setattr(slot, place.field, value)
        # what the file lacks has no storage yet
        empty = [n for n, p in self._peft.named_parameters() if adapter in n and p.is_meta]
        if empty:
            raise ValueError(
                f"it lacks {empty[0].replace('.' + adapter, '')}, which its configuration names"
            )

    def delete(self, adapter: str) -> None:
        """Let go of an adapter's matrices; all are off afterwards."""
        self.off()
        if adapter in self._peft.peft_config:
            self._peft.base_model.delete_adapter(adapter)

    def on(self, adapter: str) -> None:
        """Switch a loaded adapter on, all others off."""
        self._peft.base_model.enable_adapter_layers()
        self._peft.base_model.set_adapter(adapter, inference_mode=True)

    def off(self) -> None:
        """Switch all adapters off."""
        if self._peft is not None:
            self._peft.base_model.set_adapter([], inference_mode=True)
            self._peft.base_model.disable_adapter_layers()

    @contextmanager
    def mixed(self, rows: Sequence[str]) -> Iterator[None]:
        """Give each row of the batches that follow the loaded adapter named for it ("": none).

        peft's layers take that as an argument; `PeftModel.forward` hands it over by such hooks too,
        but only there, and a part of a model is called here.
        """
        names = [adapter or _NO_ADAPTER for adapter in rows]

        def name_rows(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, kwargs | {"adapter_names": names}

        self._peft.base_model.enable_adapter_layers()
        handles = [
            wrapper.register_forward_pre_hook(name_rows, with_kwargs=True)
            for _, wrapper in self._wrappers()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.off()

    def _wrappers(self) -> Iterator[tuple[str, Any]]:
        """Yield the wrappers with their names in the model."""
        from peft.tuners.lora import LoraLayer

        for name, module in self._model.named_modules():
            if isinstance(module, LoraLayer):
                yield name, module

    def _refuse_other_tensors(self, files: AdapterFiles) -> None:
        """Refuse a file with tensors of a base that aren't this base's.

        peft stores embeddings and output matrix beside their adapters, and would overwrite the
        base's by them, for all.
        """
        import torch
        from safetensors import safe_open

        others = [name for name in files.tensors if own_tensor(name) is None]
        if not others:
            return
        # whether wrapped already or not, here and where it was stored
        here = {n.replace(".base_layer.", "."): p for n, p in self._model.named_parameters()}
        with safe_open(str(files.folder / WEIGHTS), framework="pt") as stored:
            for name in others:
                place = name.removeprefix(PREFIX).replace(".base_layer.", ".")
                found, tensor = here.get(place), stored.get_tensor(name)
                if place == "lm_head.weight" and found is None:  # tied, so listed once
                    found = self._model.get_output_embeddings().weight
                if found is None or not torch.equal(tensor.to(found), found.detach()):
                    raise ValueError(
                        f"it brings {place} of its own, which is not the base's and would change "
                        "it for all; train it on this base as it is"
                    )


def _config(files: AdapterFiles, kind: Any) -> Any:
    """Return peft's configuration of an adapter whose weights come from its file."""
    config = kind.from_pretrained(str(files.folder))
    config.inference_mode = True
    config.init_lora_weights = False  # beginnings may read or rewrite the base
    return config


@contextmanager
def _explained(files: AdapterFiles) -> Iterator[None]:
    """Turn what peft and torch raise into an error that names the adapter."""
    try:
        yield
    except (ValueError, RuntimeError, TypeError, LookupError, AttributeError, OSError) as error:
        raise ModelError(
            f"adapter {str(files.folder)!r} can't be used on this base: {error}"
        ) from error
