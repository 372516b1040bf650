"""The section `prompt` of a sweep: how an example becomes a prompt, and what is scored after it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from engine.context import MOST_TOKENS, GenerationTask
from engine.prompts import slot_names

NEW_TOKENS = 16


class Section(BaseModel):
    """A part of a sweep; its keys' docstrings are their documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def shorthand(key: str, section: type[BaseModel]) -> BeforeValidator:
    """Return a validator that reads a plain string as a section with `key` alone."""
    return BeforeValidator(
        lambda value: {key: value} if isinstance(value, str) else value,
        json_schema_input_type=str | section,
    )


class Shot(Section):
    """A solved example in front of a few-shot prompt."""

    inputs: dict[str, str]
    """Prompt variable: text."""
    label: str
    """Name of the label."""


class PromptConfig(Section):
    """How an example becomes a prompt, and what is scored after it: labels or a continuation."""

    name: str = "prompt"
    """Short name in tables."""
    template: str | None = None
    """Text with `{variable}` slots, for example `"Review: {text}\\nSentiment:"`."""
    chat: list[dict[Literal["role", "content"], str]] | None = None
    """Messages with `{variable}` slots, rendered by the model's own chat template."""
    shots: list[Shot] = Field(default_factory=list)
    """Solved examples in front of `template`."""
    add_special_tokens: bool = True
    """Whether the tokenizer adds its own tokens to `template`; a chat has them already."""
    separator: str = "\n\n"
    """Between solved examples."""
    task: Literal["classification", "generation"] = "classification"
    """`classification` scores `labels` after the prompt; `generation` the model's own greedy
    continuation, or a given one."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Label name: the string scored after the prompt, of one or more tokens. Needed by
    classification."""
    continuation: str | None = None
    """Generation: the one of `data.inputs` that has the continuation of each example, as it stands
    after the prompt, its leading space included; by default the model's own."""
    max_new_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    """Generation: most tokens of the model's own continuation, 16 if not given."""
    normaliser: Literal["labels", "vocab"] = "labels"
    """What probabilities sum to one over."""
    calibration: Literal["none", "contextual"] = "none"
    """`contextual`: subtract the mean log-probability of each label given content-free texts
    (Zhao et al. 2021)."""
    content_free: list[str] = Field(default_factory=lambda: ["N/A", "[MASK]", ""])
    """The content-free texts of the calibration."""

    @model_validator(mode="after")
    def _one_form(self) -> PromptConfig:
        if (self.template is None) == (self.chat is None):
            raise ValueError("give either `template` or `chat`")
        for number, message in enumerate(self.chat or []):
            if set(message) != {"role", "content"}:
                raise ValueError(f"message {number} of `chat` needs both `role` and `content`")
        if self.chat is not None and self.shots:
            raise ValueError("`shots` go with `template`; write a chat's examples as messages")
        if self.task == "generation":
            return self._without_labels()
        for key in ("continuation", "max_new_tokens"):
            if getattr(self, key) is not None:
                raise ValueError(f"`{key}` goes with `task: generation`")
        if not self.labels:
            raise ValueError("`labels` is empty: name at least one label and its string")
        unknown = {shot.label for shot in self.shots} - set(self.labels)
        if unknown:
            raise ValueError(f"shots have labels {sorted(unknown)} outside {list(self.labels)}")
        return self

    def _without_labels(self) -> PromptConfig:
        if self.labels:
            raise ValueError("`labels` go with `task: classification`; generation has none")
        if self.shots:
            raise ValueError("`shots` have labels: write solved examples into the template")
        if self.calibration != "none":
            raise ValueError("`calibration` is of labels; task generation has none")
        if self.continuation is not None and self.max_new_tokens is not None:
            raise ValueError("`max_new_tokens` is of the model's own continuation, not a given one")
        return self

    @property
    def variables(self) -> frozenset[str]:
        """The inputs that the prompt shows."""
        texts = [self.template or "", *[message["content"] for message in self.chat or []]]
        return frozenset().union(*map(slot_names, texts))

    @property
    def generation(self) -> GenerationTask | None:
        """What is explained in place of labels, or None."""
        if self.task != "generation":
            return None
        return GenerationTask(self.continuation, self.max_new_tokens or NEW_TOKENS)
