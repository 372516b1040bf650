"""peft's layers on a loaded base: adapters come, go, and are switched on and off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actors.adapter_checks import PREFIX, is_own
from actors.adapter_files import WEIGHTS, AdapterFiles
from engine.errors import ModelError

if TYPE_CHECKING:
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
                wrapped = [w for w in self._wrappers() if adapter in w.lora_magnitude_vector]
                self.unpacked |= {wrapper.get_base_layer() for wrapper in wrapped}
            self.delete(adapter)

    def load(self, files: AdapterFiles, adapter: str) -> None:
        """Bring an adapter's matrices in from its file; all are off afterwards.

        Raises:
            ModelError: The file and its configuration or the base don't belong together.
        """
        from peft import LoraConfig, set_peft_model_state_dict
        from safetensors.torch import load_file

        self.off()
        with _explained(files):
            stored = load_file(files.folder / WEIGHTS, device=str(self._model.device))
            # in single precision, as peft keeps what it loads itself
            own = {name: tensor.float() for name, tensor in stored.items() if is_own(name)}
            self._peft.add_adapter(adapter, _config(files, LoraConfig), low_cpu_mem_usage=True)
            found: Any = set_peft_model_state_dict(
                self._peft, own, adapter_name=adapter, low_cpu_mem_usage=True
            )
            # what the file lacks has no storage yet
            empty = [n for n, p in self._peft.named_parameters() if adapter in n and p.is_meta]
        self._peft.eval()
        self.off()
        if not empty and not found.unexpected_keys:
            return
        self.delete(adapter)
        if empty:
            what = f"lacks {empty[0].replace('.' + adapter, '')}, which its configuration names"
        else:
            what = f"has {found.unexpected_keys[0]}, for which the base or its configuration has no"
            what += " layer"
        raise ModelError(
            f"adapter {str(files.folder)!r} {what}: its files don't belong together, or it was "
            "trained on another base"
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
            w.register_forward_pre_hook(name_rows, with_kwargs=True) for w in self._wrappers()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.off()

    def _wrappers(self) -> list[Any]:
        from peft.tuners.lora import LoraLayer

        return [module for module in self._model.modules() if isinstance(module, LoraLayer)]

    def _refuse_other_tensors(self, files: AdapterFiles) -> None:
        """Refuse a file with tensors of a base that aren't this base's.

        peft stores embeddings and output matrix beside their adapters, and would overwrite the
        base's by them, for all.
        """
        import torch
        from safetensors import safe_open

        others = [name for name in files.tensors if not is_own(name)]
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
