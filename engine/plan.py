"""From a configuration to units: pairs of model and prompt, their contexts, shards of examples."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from engine.adapter_section import BASE
from engine.commits import CommittedPart
from engine.config import DataConfig, ModelConfig, PromptConfig, SweepConfig, dump_config
from engine.context import ExplainerTask, FaithfulnessTask, StepContext, Unit
from engine.data import DataSource, example_key
from engine.errors import ConfigError, ExampleError, ModelError
from engine.explainers import parameters as explainer_parameters
from engine.facts import AdapterFacts, Lost, ModelFacts, all_of
from engine.generation_settings import class_rule
from engine.guests.names import check_parameters, is_guest
from engine.prompts import (
    LabelSet,
    PromptTemplate,
    few_shot,
    from_chat,
    parse_template,
    resolve_labels,
)
from engine.schema import FACTORS, SCHEMA_VERSION
from engine.sections import unknown
from engine.seeds import derive, digest
from engine.tokens import load_tokenizer
from engine.types import Example

PREDICTED_PER_EXPLAINED = 16
"""Examples that are predicted only make larger units: each asks for one evaluation."""

UNFIT = "prompt_unfit"
"""Code of the failure of a model that a prompt can't be put to."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A model with a prompt: what evaluations belong to.

    Attributes:
        key: Unique within the sweep.
        model: The model's configuration.
        weights: Digest of the model's weights; a host with others is refused.
        adapter: The adapter that is switched on, or None for the base.
        context: What the pair's units share.
        evaluation_fingerprint: Names the pair's folder in the store.
    """

    key: str
    model: ModelConfig
    weights: str
    adapter: AdapterFacts | None
    context: StepContext
    evaluation_fingerprint: str

    @property
    def is_untrained(self) -> bool:
        """Whether its adapter is still to be trained: its fingerprint and its units will change."""
        return self.adapter is not None and self.adapter.is_untrained


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole sweep.

    Attributes:
        config: The configuration.
        fingerprint: Of everything that affects results, the data's content included; the weights'
            stand in each pair's evaluation fingerprint.
        pairs: By key.
        units: In order.
        examples: The sampled examples.
        explained: Ids of those that are explained; the others are predicted only.
        lost: Prompts that don't fit a model, which others fit.
    """

    config: SweepConfig
    fingerprint: str
    pairs: Mapping[str, Pair]
    units: tuple[Unit, ...]
    examples: tuple[Example, ...]
    explained: frozenset[str]
    lost: tuple[Lost, ...] = ()

    def of_what_is_there(self) -> Plan:
        """Return the plan without the pairs whose adapters are still to be trained."""
        pairs = {key: pair for key, pair in self.pairs.items() if not pair.is_untrained}
        return replace(self, pairs=pairs, units=tuple(u for u in self.units if u.pair in pairs))


def data_source(config: SweepConfig, data: DataConfig | None = None) -> DataSource:
    """Return where the sweep's examples come from, or those of other data with its labels."""
    data = data or config.data
    return DataSource(
        path=data.path,
        inputs=dict(data.inputs),
        label=data.label if config.task == "classification" else None,
        id=data.id,
        group=data.group,
        rationale=data.rationale,
        rationale_kind=data.rationale_kind,
        label_names=tuple(data.label_names or config.label_names),
        skip_other_labels=data.other_labels == "skip",
        limit=data.limit,
        seed=config.run.seed,
        split=data.split,
        subset=data.subset,
    )


def build_template(
    prompt: PromptConfig, facts: ModelFacts, inputs: Collection[str], place: str
) -> PromptTemplate:
    """Return the template of a prompt for one model.

    Raises:
        ConfigError: The template is malformed, has a slot that is none of `inputs`, or the model
            has no chat template.
    """
    if prompt.chat is not None:
        with naming(f"{place}.chat"):
            if facts.chat is None:
                raise ConfigError("this model has no chat template; use `template`")
            messages = [{str(k): v for k, v in message.items()} for message in prompt.chat]
            template = from_chat(messages, facts.chat)
            for name in template.variables:
                if name not in inputs:
                    raise ConfigError(unknown("slot", name, inputs))
            return template
    with naming(f"{place}.template"):
        template = parse_template(prompt.template or "", inputs, prompt.add_special_tokens)
    if not prompt.shots:
        return template
    with naming(f"{place}.shots"):
        shots = [(shot.inputs, shot.label) for shot in prompt.shots]
        return few_shot(template, shots, prompt.labels, prompt.separator)


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Put the key in front of what is wrong with its value."""
    try:
        yield
    except (ConfigError, ExampleError) as error:
        raise ConfigError(f"{place}: {error}") from None


def build_plan(
    config: SweepConfig,
    examples: Sequence[Example],
    facts: Mapping[str, ModelFacts],
    store: str | Path,
) -> Plan:
    """Return pairs and units.

    Args:
        config: The configuration.
        examples: From `engine.data.load_examples` of `data_source(config)`.
        facts: By `ModelConfig.label` and precision, `"label/precision"`.
        store: Root folder of the store.

    Raises:
        ConfigError: A prompt fits none of the models, or not the data.
    """
    examples = with_gold(config, config.data, examples)
    pairs: dict[str, Pair] = {}
    lost: list[Lost] = []
    for model in config.models:
        if model_key(model) not in facts:
            continue  # can't be found: reported by the caller, the others go on
        known = facts[model_key(model)]
        unfit: dict[str, Lost] = {}
        for wanted in config.wanted_adapters(model):
            if not wanted.is_base and wanted.name not in known.adapters:
                continue
            for index, prompt in enumerate(config.prompts):
                if prompt.name in unfit:
                    continue
                try:
                    pair = _pair(config, model, wanted.name, prompt, index, known, Path(store))
                except (ConfigError, ModelError) as error:
                    place = (model.label, model.precision, "")
                    unfit[prompt.name] = Lost(*place, UNFIT, str(error), prompt.name)
                    continue
                pairs[pair.key] = pair
        lost += unfit.values()
    fitting = {pair.context.factors["prompt"] for pair in pairs.values()}
    if nowhere := [each for each in lost if each.prompt not in fitting]:
        raise ConfigError(all_of(nowhere))
    explained = _explained(config, examples)
    units = [
        unit
        for pair in pairs.values()
        for unit in _units(pair, examples, explained, config.cluster.shard_size)
    ]
    fingerprint = digest(
        {
            "config": config.run_fingerprint(),
            "schema": SCHEMA_VERSION,
            "examples": [[e.id, example_key(e.fields), e.label, e.group] for e in examples],
        }
    )
    return Plan(config, fingerprint, pairs, tuple(units), tuple(examples), explained, tuple(lost))


def _explained(config: SweepConfig, examples: Sequence[Example]) -> frozenset[str]:
    ids = [example.id for example in examples]
    most = config.data.explain_limit
    if most is None or most >= len(ids):
        return frozenset(ids)
    seed = config.run.seed
    return frozenset(sorted(ids, key=lambda name: derive("explained", seed, name))[:most])


def _units(
    pair: Pair, examples: Sequence[Example], explained: frozenset[str], size: int
) -> list[Unit]:
    chosen = [example for example in examples if example.id in explained]
    others = [example for example in examples if example.id not in explained]
    return [
        *shard(pair, chosen, size),
        *shard(pair, others, size * PREDICTED_PER_EXPLAINED, explain=False),
    ]


def with_gold(
    config: SweepConfig, data: DataConfig, examples: Sequence[Example]
) -> Sequence[Example]:
    """Return examples of `data` with labels that count in the prompt's order, not in the data's."""
    names = data.label_names
    if names is None:
        return examples
    place = [config.label_names.index(name) for name in names]
    return [e if e.label is None else replace(e, label=place[e.label]) for e in examples]


def model_key(model: ModelConfig) -> str:
    """Return the key of a model with its precision."""
    return f"{model.label}/{model.precision}"


def _pair(
    config: SweepConfig,
    model: ModelConfig,
    adapter_name: str,
    prompt: PromptConfig,
    index: int,
    facts: ModelFacts,
    store: Path,
) -> Pair:
    place = f"prompts.{index}" if len(config.prompts) > 1 else "prompt"
    template = build_template(prompt, facts, config.data.inputs, place)
    tokenizer = load_tokenizer(facts.tokenizer)
    if prompt.continuation in template.variables:
        raise ConfigError(
            f"{place}: {{{prompt.continuation}}} is the continuation and would stand in the prompt"
        )
    labels = LabelSet((), (), ())
    if prompt.generation is None:
        with naming(f"{place}.labels"):
            labels = resolve_labels(template, tokenizer, prompt.labels)
    adapter = facts.adapters.get(adapter_name)
    fingerprint = digest(
        {
            "weights": facts.digest,
            "by_example": config.run.deterministic == "example",
            "precision": model.precision,
            **({"double_quant": model.double_quant} if model.in_four_bits else {}),
            **({"replicate": model.replicate} if model.replicate else {}),
            "adapter": BASE if adapter is None else adapter.digest,
            "template": repr(template),
            "tokenizer": digest(facts.tokenizer),
            "labels": [list(labels.strings), [list(ids) for ids in labels.token_ids]]
            if prompt.generation is None
            else "continuations",
        }
    )
    factors = dict(
        zip(
            FACTORS,
            (config.data.table_name, model.label, model.precision, adapter_name, prompt.name),
            strict=True,
        )
    )
    plan = config.metrics
    context = StepContext(
        factors=factors,
        template=template,
        labels=labels,
        tokenizer=facts.tokenizer,
        max_tokens=facts.max_tokens - max((len(ids) for ids in labels.token_ids), default=1) + 1,
        normaliser=prompt.normaliser,
        content_free=tuple(prompt.content_free) if prompt.calibration == "contextual" else (),
        explainers=explainer_tasks(config),
        faithfulness=FaithfulnessTask(tuple(plan.fractions), plan.random_orders, plan.curve_points)
        if plan.faithfulness
        else None,
        seed=config.run.seed,
        store=str(store / fingerprint),
        by_example=config.run.deterministic == "example",
        generation=prompt.generation,
        adapter="" if adapter is None else adapter.digest,
    )
    key = "|".join(factors[name] for name in ("model", "precision", "adapter", "prompt"))
    return Pair(key, model, facts.digest, adapter, context, fingerprint)


def explainer_tasks(config: SweepConfig) -> tuple[ExplainerTask, ...]:
    """Return the explainers of a sweep, resolved, in the order of the configuration.

    Raises:
        ConfigError: A guest isn't there, or has no such parameter.
    """
    for explainer in config.explainers:
        if is_guest(explainer.name):
            check_parameters(explainer.name, explainer.params)
    tasks = [
        ExplainerTask(
            label=e.label,
            name=e.name,
            params=e.params,
            features=e.features,
            operator=e.operator,
            replacement=e.replacement,
            target=e.target,
            class_rule=_class_rule(config, e.class_),
            seed=config.run.seed if e.seed is None else e.seed,
        )
        for e in config.explainers
    ]
    # from one pool unless told otherwise: explainers, metrics and later runs then share coalitions
    given = [e.sampling or ("own" if e.compat else "pool") for e in config.explainers]
    return tuple(
        replace(task, params={**task.params, "sampling": sampling}) if _samples(task) else task
        for task, sampling in zip(tasks, given, strict=True)
    )


def _class_rule(config: SweepConfig, given: str) -> str:
    if config.task == "generation":
        return class_rule(given)
    return given if given in ("predicted", "gold") else f"label:{given}"


def _samples(task: ExplainerTask) -> bool:
    return not is_guest(task.name) and "sampling" in explainer_parameters(task.name)


def shard(
    pair: Pair, examples: Sequence[Example], size: int, *, explain: bool = True
) -> list[Unit]:
    """Return the units of a pair: `size` examples each, in order.

    One example each where continuations are explained: a request has one label set.
    """
    size = size if pair.context.generation is None else 1
    units = []
    for start in range(0, len(examples), size):
        chunk = tuple(examples[start : start + size])
        content = [[e.id, example_key(e.fields)] for e in chunk]
        named = [pair.key, pair.evaluation_fingerprint, content]
        name = digest(named if explain else [*named, "predicted only"])
        units.append(Unit(name, pair.key, chunk, explain=explain))
    return units


def with_stored(
    unit: Unit, index: Mapping[str, tuple[CommittedPart, ...]], calibration: Sequence[str]
) -> Unit:
    """Return the unit with the row groups of the store that hold evaluations of its examples.

    Args:
        unit: The unit.
        index: From `engine.store.index_store`.
        calibration: Keys of the content-free examples.
    """
    wanted = [*(example_key(e.fields) for e in unit.examples), *calibration]
    parts = {part: None for key in wanted for part in index.get(key, ())}
    return replace(unit, stored=tuple(parts))


def run_record(plan: Plan) -> dict[str, object]:
    """Return the part of run.json that the plan decides."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run_fingerprint": plan.fingerprint,
        "evaluation_fingerprints": {k: p.evaluation_fingerprint for k, p in plan.pairs.items()},
        "config": dump_config(plan.config),
    }
