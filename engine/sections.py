"""The sections of a sweep: what each key means, its default, and what goes with what.

`engine.config` reads and writes them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from engine.adapter_section import WantedAdapter, wanted_adapters
from engine.data_section import Data
from engine.errors import ConfigError
from engine.explainers import build_method
from engine.explainers import method_names as explainer_names
from engine.explainers import parameters as explainer_parameters
from engine.finetune_section import FinetuneConfig
from engine.finetune_settings import check_finetune
from engine.generation_settings import check_generation, with_generation_defaults
from engine.guests.names import is_guest
from engine.guests.settings import check_guest, check_guest_inputs
from engine.model_section import Model, ModelConfig, one_a_precision
from engine.prompt_section import PromptConfig, Section, shorthand
from engine.scheduling import without_scheduling
from engine.seeds import digest
from engine.types import FeatureKind, OperatorName, Target


def _scheduling(default: Any, **kwargs: Any) -> Any:
    """Return a field that changes where or when things run but no result: not fingerprinted."""
    return Field(default=default, json_schema_extra={"scheduling": True}, **kwargs)


class RunConfig(Section):
    """The run: its name, its seed, where its files go."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the run folder `runs/<name>` and the report."""
    seed: int = Field(default=0, ge=0)
    """Seed of what is sampled: examples, coalitions, random orders."""
    out: str | None = _scheduling(None)
    """The run folder; `runs/<name>` if not given."""
    store: str = _scheduling("store")
    """Folder of the evaluation store, shared by runs."""
    deterministic: Literal["none", "example"] = "none"
    """`example`: form batches from one example's requests only, so that results are bit-equal on
    one kind of hardware whatever else runs; slower."""


Class = Annotated[
    str,
    BeforeValidator(
        lambda value: str(value) if type(value) is int else value,  # a token's number
        json_schema_input_type=str | int,
    ),
]


class ExplainerConfig(BaseModel):
    """An explainer with its parameters, and what it explains.

    Parameters of the method itself (`num_samples`, `compat`, …) stand beside these keys.
    """

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str
    """The method: lime, kernel_shap, exact, permutation_shap, occlusion or random; of a model's
    gradients integrated_gradients, gradient_x_input or ig_occlusion; or a guest such as
    `guest:lime` or `guest:module:callable`."""
    id: str | None = None
    """Name in tables; the method, and its profile if any, if not given."""
    features: FeatureKind = "words"
    """What is kept or removed as one."""
    operator: OperatorName = "delete"
    """How a feature is removed; by the metrics alone where gradients explain."""
    replacement: str | None = None
    """The string of the `mask` and `neutral` operators."""
    target: Target = "log_odds"
    """What is explained of the label's log-probability; for guests `probability` by default. With
    `task: generation` always `logprob`."""
    sampling: Literal["pool", "own"] | None = None
    """Coalitions of lime and kernel_shap: `pool` (the default) are shared by explainers, metrics
    and later runs; `own` are the method's own, as the compat profiles always have them."""
    class_: Class = Field(default="predicted", alias="class")
    """The label whose row is reported: `predicted`, `gold`, or a label's name. With `task:
    generation` `whole`, its default there, or the number of a token of the continuation from 0."""
    seed: int | None = Field(default=None, ge=0)
    """Seed of the coalitions; the run's if not given. The compat profiles hand it to each
    explanation as their library would take it."""

    @model_validator(mode="before")
    @classmethod
    def _guests_explain_probabilities(cls, value: Any) -> Any:
        if isinstance(value, dict) and is_guest(str(value.get("name"))):
            return {"target": "probability", **value}
        return value

    @model_validator(mode="after")
    def _parameters_known(self) -> ExplainerConfig:
        if is_guest(self.name):
            check_guest(self.name, self.params, self.features, self.operator)
            return self
        if self.name not in explainer_names():
            raise ValueError(unknown("explainer", self.name, explainer_names()))
        known = set(explainer_parameters(self.name)) - {"seed"}
        if self.sampling is not None and "sampling" not in known:
            raise ValueError(f"{self.name} has no `sampling`: only lime and kernel_shap have")
        settings = {f.alias or key for key, f in ExplainerConfig.model_fields.items()}
        for key in self.model_extra or {}:
            if key not in known:
                raise ValueError(
                    unknown(f"parameter of {self.name}", key, sorted(known | settings))
                )
        try:
            build_method(
                self.name, **self.params, **({"sampling": self.sampling} if self.sampling else {})
            )
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _operator_complete(self) -> ExplainerConfig:
        needs = self.operator in ("mask", "neutral")
        if needs and not self.replacement:
            raise ValueError(f"operator {self.operator!r} needs `replacement: STRING`")
        if not needs and self.replacement is not None:
            raise ValueError("`replacement` goes with operator `mask` or `neutral`")
        if self.operator == "pad" and self.compat:
            raise ValueError("a compat profile masks as its library does, not by `pad`")
        return self

    @property
    def compat(self) -> str | None:
        """The library whose results are reproduced, or None."""
        value = self.params.get("compat")
        return str(value) if value else None

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the method."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """The explainer's name in tables."""
        return self.id or (f"{self.name}.compat_{self.compat}" if self.compat else self.name)


class MetricsConfig(Section):
    """What is measured of each explanation."""

    faithfulness: bool = True
    """Comprehensiveness, sufficiency and deletion AUC; they cost evaluations."""
    fractions: list[float] = Field(default_factory=lambda: [0.01, 0.05, 0.10, 0.20, 0.50])
    """Fractions k of the words; sets of ⌈k·d⌉ words, equal sets counted once."""
    random_orders: int = Field(default=10, ge=2)
    """Random orders that give the expected value under chance."""
    curve_points: int = Field(default=20, ge=2)
    """Longest deletion curve that removes one word at a time."""

    @field_validator("fractions")
    @classmethod
    def _fractions_in_range(cls, value: list[float]) -> list[float]:
        if not value or any(not 0 < fraction <= 1 for fraction in value):
            raise ValueError("fractions lie in (0, 1], and there is at least one")
        return value


class ClusterConfig(Section):
    """Where it runs; moves a real model's results in the last digits at most."""

    address: str | None = _scheduling(None)
    """Ray address, `auto` for the running cluster; null starts Ray on this machine."""
    num_cpus: int | None = _scheduling(None, ge=1)
    """Logical CPUs of the Ray started on this machine; by default all."""
    hosts: int | None = _scheduling(None, ge=1)
    """Hosts a model; by default one a GPU, or one on a machine without."""
    gpus_per_host: float | None = _scheduling(None, ge=0, allow_inf_nan=False)
    """GPU share of a host; by default 1 where the cluster has GPUs, else 0."""
    threads: int | None = _scheduling(None, ge=1)
    """Threads of a host on the CPU; by default the physical cores divided by the hosts."""
    shard_size: int = _scheduling(4, ge=1)
    """Examples a unit of work."""
    attempts: int = _scheduling(3, ge=1)
    """How often a unit is tried before it counts as failed."""
    commit_seconds: float = _scheduling(10.0, gt=0)
    """Longest time between a result and its commit: what a crash can lose."""


Explainer = Annotated[ExplainerConfig, shorthand("name", ExplainerConfig)]


class SweepConfig(Section):
    """A sweep: models × prompts over the examples, each explained by every explainer."""

    run: RunConfig = Field(default_factory=RunConfig)
    models: Annotated[list[Model], BeforeValidator(one_a_precision)] = Field(min_length=1)
    data: Data
    prompts: list[PromptConfig] = Field(min_length=1)
    explainers: list[Explainer] = Field(default_factory=list)
    finetune: list[FinetuneConfig] = Field(default_factory=list)
    metrics: MetricsConfig = Field(default_factory=MetricsConfig)
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)

    @model_validator(mode="before")
    @classmethod
    def _one_prompt_is_a_list(cls, value: Any) -> Any:
        if isinstance(value, dict) and "prompt" in value:
            if "prompts" in value:
                raise ValueError("give either `prompt` or `prompts`")
            value = {**value, "prompts": [value["prompt"]]}
            del value["prompt"]
        return with_generation_defaults(value)

    @model_validator(mode="after")
    def _names_are_unique(self) -> SweepConfig:
        for what, labels in (
            ("models", [f"{m.label}, {m.precision}" for m in self.models]),
            ("prompts", [p.name for p in self.prompts]),
            ("explainers", [e.label for e in self.explainers]),
            ("finetune", [f.name for f in self.finetune]),
        ):
            twice = {label for label in labels if labels.count(label) > 1}
            if twice:
                key = "id" if what == "explainers" else "name"
                raise ValueError(
                    f"{what}: {sorted(twice)} stands twice; tell them apart by `{key}`"
                )
        for model in self.models:
            for adapter in model.adapters:
                if adapter.finetune is not None and adapter.finetune not in self.finetune_seeds:
                    known = list(self.finetune_seeds) or ["no entry of `finetune`"]
                    raise ValueError(
                        f"models: {model.label}: {unknown('finetune', adapter.finetune, known)}"
                    )
            wanted_adapters(model.adapters, self.finetune_seeds)
        if len({p.task for p in self.prompts}) > 1:
            raise ValueError("all prompts of a sweep have the same task")
        if self.task == "generation":
            check_generation(self)
            return self
        sets = {tuple(p.labels) for p in self.prompts}
        if len(sets) > 1:
            raise ValueError("all prompts of a sweep have the same label names in the same order")
        names = self.data.label_names or []
        for name in names:
            if name not in self.label_names:
                raise ValueError("data.label_names: " + unknown("label", name, self.label_names))
            if names.count(name) > 1:
                raise ValueError(f"data.label_names: {name!r} stands twice")
        for entry in self.finetune:
            check_finetune(self, entry)
        for explainer in self.explainers:
            if is_guest(explainer.name):
                check_guest_inputs(explainer.name, explainer.params, tuple(self.data.inputs))
            if explainer.class_ not in ("predicted", "gold", *self.label_names):
                known = ["predicted", "gold", *self.label_names]
                raise ValueError(unknown(f"class of {explainer.label}", explainer.class_, known))
            if explainer.target == "log_odds" and len(self.label_names) < 2:
                raise ValueError(f"{explainer.label}: log_odds needs two labels; use `logprob`")
        return self

    @property
    def task(self) -> Literal["classification", "generation"]:
        """What is explained: labels or continuations."""
        return self.prompts[0].task

    @property
    def finetune_seeds(self) -> dict[str, list[int]]:
        """Name of each entry of `finetune` -> its training seeds."""
        return {entry.name: entry.seeds for entry in self.finetune}

    def wanted_adapters(self, model: ModelConfig) -> tuple[WantedAdapter, ...]:
        """Return the adapters of a model one by one, the base among them if it is asked for."""
        return wanted_adapters(model.adapters, self.finetune_seeds)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The label set, in order."""
        return tuple(self.prompts[0].labels)

    def run_fingerprint(self) -> str:
        """Return the digest of all that affects results; scheduling and folders are left out."""
        return digest(without_scheduling(self))


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """Return that there is no such name, with the nearest known one or all of them."""
    known = list(known)
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown {what} {given!r}; {hint}"
