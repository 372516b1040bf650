"""What an entry of `finetune` must have in common with the rest of its sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.data_section import DataConfig
from engine.finetune_section import FinetuneConfig

if TYPE_CHECKING:
    from engine.prompt_section import PromptConfig
    from engine.sections import SweepConfig


def check_finetune(sweep: SweepConfig, entry: FinetuneConfig) -> None:
    """Check an entry against the sweep's prompts, labels and data.

    Raises:
        ValueError: It names a prompt, a label or an input that the sweep hasn't.
    """
    place = f"finetune.{entry.name}"
    names = [prompt.name for prompt in sweep.prompts]
    if entry.prompt is None and len(names) > 1:
        raise ValueError(f"{place}: give `prompt`, the one to train with, of {', '.join(names)}")
    if entry.prompt is not None and entry.prompt not in names:
        raise ValueError(f"{place}: there is no prompt {entry.prompt!r}, but {', '.join(names)}")
    if len(sweep.label_names) < 2:
        raise ValueError(f"{place}: training needs at least two labels")
    for key, data in (("data", entry.data), ("validation", entry.validation)):
        if not isinstance(data, DataConfig):
            continue
        for label in data.label_names or ():
            if label not in sweep.label_names:
                raise ValueError(f"{place}.{key}.label_names: the prompt has no label {label!r}")
        for name in data.inputs:
            if name not in sweep.data.inputs:
                raise ValueError(
                    f"{place}.{key}.inputs: {name!r} is none of the sweep's data.inputs "
                    f"({', '.join(sweep.data.inputs)})"
                )


def training_prompt(sweep: SweepConfig, entry: FinetuneConfig) -> tuple[int, PromptConfig]:
    """Return the prompt that an entry trains with, and its place in the sweep."""
    for index, prompt in enumerate(sweep.prompts):
        if entry.prompt in (None, prompt.name):
            return index, prompt
    raise AssertionError(f"{entry.prompt} was checked when the sweep was read")
