"""Which trainings a sweep wants, where their adapters lie, and which of them are done."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from actors.checkpoints import last_checkpoint
from actors.trainer import CHECKPOINTS, trained
from actors.training_rows import encode
from engine.adapter_section import WantedAdapter
from engine.config import ClusterConfig, FinetuneConfig, ModelConfig, SweepConfig
from engine.errors import ConfigError, ModelError
from engine.facts import UNTRAINED, AdapterFacts, Lost, ModelFacts, all_of
from engine.finetune_settings import training_prompt
from engine.labels import resolve_labels
from engine.plan import UNFIT, build_template, model_key, naming
from engine.tokens import load_tokenizer
from engine.training import TrainingTask
from engine.training_data import TrainingData, load_training_data
from engine.types import Example
from jobs.auto_precision import auto_here
from jobs.facts import model_path, refused_adapters

SAMPLE = 64
"""Examples whose tokens are counted; the rest is scaled up from them."""


@dataclass(frozen=True, slots=True)
class Training:
    """An adapter that a sweep wants to have trained.

    Attributes:
        model: The model that names it.
        adapter: Its name in tables.
        fingerprint: Of the task; names the folder.
        folder: Where the adapter is, or will be.
        task: What to train.
    """

    model: ModelConfig
    adapter: str
    fingerprint: str
    folder: Path
    task: TrainingTask

    @property
    def place(self) -> str:
        """Model, precision and adapter, for people."""
        return f"{model_key(self.model)} with {self.adapter}"

    @property
    def is_done(self) -> bool:
        """Whether the adapter is at hand, trained by whatever run."""
        return trained(self.folder) is not None

    @property
    def steps(self) -> int:
        """Optimizer steps, if early stopping doesn't end it."""
        entry = self.task.entry
        batches = math.ceil(len(self.task.data.train) / entry.batch_size)
        return math.ceil(entry.epochs * math.ceil(batches / entry.gradient_accumulation))

    @property
    def step_done(self) -> int:
        """The step at which it goes on, 0 where it begins."""
        last = last_checkpoint(self.folder / CHECKPOINTS)
        return 0 if last is None else int(last.state["global_step"])

    def tokens(self) -> int:
        """Return about how many tokens go through the model, validations not counted."""
        task, examples = self.task, self.task.data.train
        sample = examples[:: max(1, len(examples) // SAMPLE)][:SAMPLE]
        rows = encode(sample, task.template, task.labels, task.tokenizer, task.max_tokens)
        mean = sum(len(row.ids) for row in rows) / max(1, len(rows))
        return int(mean * len(examples) * task.entry.epochs)


def plan_trainings(
    config: SweepConfig,
    facts: Mapping[str, ModelFacts],
    examples: Sequence[Example],
    store: Path,
    auto: Callable[[ClusterConfig], str | None] = auto_here,
) -> tuple[list[Training], list[Lost]]:
    """Return the trainings of all models at hand, done or not, and those that can't be.

    Two trainings may have one folder.

    Adapters that the model's backend couldn't serve afterwards are not trained.

    Args:
        config: The sweep.
        facts: By model key.
        examples: Of the sweep; none of their texts is trained on.
        store: The sweep's store.
        auto: Says what precision `auto` is where trainings run, None if that isn't known; such
            trainings stay `auto` and count as not done. Asked only if a model needs it.

    Raises:
        ConfigError: The prompts fit none of the models.
        DataError: Training data can't be read, or nothing is left of them.
    """
    entries = {entry.name: entry for entry in config.finetune}
    loaded: dict[str, TrainingData] = {}
    ask = functools.cache(lambda: auto(config.cluster))
    found: list[Training] = []
    lost: list[Lost] = []
    for model in config.models:
        if model_key(model) not in facts:
            continue
        refused = refused_adapters(config, model)
        for wanted in config.wanted_adapters(model):
            if wanted.finetune is None or wanted.name in refused:
                continue
            entry = entries[wanted.finetune]
            if entry.name not in loaded:
                loaded[entry.name] = load_training_data(config, entry, examples)
            known = facts[model_key(model)]
            try:
                task = _task(config, entry, model, wanted, known, loaded[entry.name])
            except (ConfigError, ModelError) as error:
                lost.append(Lost(model.label, model.precision, wanted.name, UNFIT, str(error)))
                continue
            if task.precision == "auto":
                task = replace(task, precision=ask() or "auto")
            name = task.fingerprint
            found.append(Training(model, wanted.name, name, store / "adapters" / name, task))
    if len({(each.model, each.precision) for each in lost}) == len(facts) and lost:
        raise ConfigError(all_of(lost))
    return found, lost


def _task(
    config: SweepConfig,
    entry: FinetuneConfig,
    model: ModelConfig,
    wanted: WantedAdapter,
    facts: ModelFacts,
    data: TrainingData,
) -> TrainingTask:
    index, prompt = training_prompt(config, entry)
    place = f"prompts.{index}" if len(config.prompts) > 1 else "prompt"
    template = build_template(prompt, facts, entry.data.inputs, place)
    with naming(f"{place}.labels"):
        labels = resolve_labels(template, load_tokenizer(facts.tokenizer), prompt.labels)
    if wanted.seed is None:
        raise ConfigError(f"the adapter {wanted.name} has no training seed")
    return TrainingTask(
        model=model_path(model),
        weights=facts.digest,
        precision=facts.quantized or model.precision,
        tokenizer=facts.tokenizer,
        max_tokens=min(entry.max_tokens or facts.max_tokens, facts.max_tokens),
        template=template,
        labels=labels,
        data=data,
        entry=entry,
        seed=wanted.seed,
        options=model.options,
        double_quant=model.double_quant or not model.in_four_bits,
        as_stored=facts.quantized is not None,
    )


def with_trained(
    facts: Mapping[str, ModelFacts],
    trainings: Sequence[Training],
    failed: Mapping[str, str] | None = None,
) -> tuple[dict[str, ModelFacts], list[Lost]]:
    """Return the facts with the adapters that are trained, and those that aren't.

    Args:
        facts: By model key.
        trainings: All that the sweep wants.
        failed: Fingerprint -> why it couldn't be trained. If None, what isn't trained yet counts as
            if it were, with a digest that stands for it: so the plan is whole beforehand.
    """
    result, lost = dict(facts), []
    for training in trainings:
        if (files := trained(training.folder)) is not None:
            adapter = AdapterFacts(files.digest, str(files.folder))
        elif failed is None:
            adapter = AdapterFacts(f"{UNTRAINED}{training.fingerprint}", str(training.folder))
        else:
            why = failed.get(training.fingerprint, "it was not trained")
            model = training.model
            lost.append(Lost(model.label, model.precision, training.adapter, "not_trained", why))
            continue
        key = model_key(training.model)
        known = result[key]
        result[key] = replace(known, adapters={**known.adapters, training.adapter: adapter})
    return result, lost
