"""What a sweep's configuration says where continuations are explained and not labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.explainers import build_method
from engine.explainers.gradients import GradientMethod
from engine.guests.names import is_guest
from engine.guests.settings import check_guest_inputs

if TYPE_CHECKING:
    from engine.sections import ExplainerConfig, SweepConfig

TARGET = "logprob"
WHOLE = "whole"


def with_generation_defaults(raw: Any) -> Any:
    """Return plain values of a sweep with `target` and `class` of its explainers filled in.

    Their defaults are those of labels, which a continuation has not. Other sweeps, and values that
    are no sweep at all, are returned as they are.
    """
    if not isinstance(raw, dict):
        return raw
    prompts, explainers = raw.get("prompts"), raw.get("explainers")
    if not isinstance(prompts, list) or not isinstance(explainers, list):
        return raw
    if not any(isinstance(p, dict) and p.get("task") == "generation" for p in prompts):
        return raw
    return {**raw, "explainers": [_with_defaults(explainer) for explainer in explainers]}


def _with_defaults(explainer: Any) -> Any:
    if isinstance(explainer, str):
        explainer = {"name": explainer}
    if not isinstance(explainer, dict):
        return explainer
    return {"target": TARGET, "class": WHOLE, **explainer}


def class_rule(given: str) -> str:
    """Return the class rule of an explainer, as tables name it."""
    return WHOLE if given == WHOLE else f"token:{int(given)}"


def check_generation(sweep: SweepConfig) -> None:
    """Check what a sweep says beside its prompts.

    Raises:
        ValueError: Something needs a label set, or a text that isn't there.
    """
    if fake := next((m for m in sweep.models if m.is_fake), None):
        raise ValueError(f"{fake.label}: the fake models score labels only, no continuation")
    if sweep.finetune:
        raise ValueError("finetune: training is of labels; task generation has none")
    if sweep.data.label_names is not None:
        raise ValueError("data.label_names: task generation has no labels; leave it out")
    given = [p.continuation for p in sweep.prompts if p.continuation is not None]
    for name in given:
        if name not in sweep.data.inputs:
            raise ValueError(
                f"continuation: {name!r} is none of data.inputs ({', '.join(sweep.data.inputs)}); "
                f"add its column there, for example {name}: {name}"
            )
    inputs = tuple(name for name in sweep.data.inputs if name not in given)
    for explainer in sweep.explainers:
        _check_explainer(explainer)
        if is_guest(explainer.name):
            check_guest_inputs(explainer.name, explainer.params, inputs)


def _check_explainer(explainer: ExplainerConfig) -> None:
    name, rule = explainer.label, explainer.class_
    if explainer.target != TARGET:
        raise ValueError(
            f"{name}: {explainer.target} needs a label set; task generation explains "
            f"`target: {TARGET}`, its default there"
        )
    if rule != WHOLE and not (rule.isascii() and rule.isdecimal()):
        raise ValueError(
            f"{name}: class {rule!r} needs a label set; of a continuation it is `{WHOLE}` or a "
            "token's number from 0"
        )
    if not is_guest(explainer.name) and isinstance(
        build_method(explainer.name, **explainer.params), GradientMethod
    ):
        raise ValueError(
            f"{name}: the gradient explainers differentiate labels; task generation takes "
            "those that remove features, such as lime, kernel_shap or occlusion"
        )
