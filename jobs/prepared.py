"""What is known of a sweep before anything runs: data, models, trainings; found out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.config import ClusterConfig, SweepConfig
from engine.data import LoadedData, load_examples
from engine.facts import Lost, ModelFacts
from engine.plan import Plan, build_plan, data_source
from jobs.auto_precision import auto_here
from jobs.facts import facts_of
from jobs.folders import absolute
from jobs.training_plan import Training, plan_trainings, with_trained


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sweep with all that its plan is made of, before and after its adapters are trained.

    Attributes:
        config: The sweep.
        data: Its examples, and the rows that are none.
        facts: Of the models at hand, by model key, without the adapters that the sweep trains.
        trainings: Of these, done or not.
        lost: Models and adapters that can't be had or trained.
    """

    config: SweepConfig
    data: LoadedData
    facts: Mapping[str, ModelFacts]
    trainings: tuple[Training, ...]
    lost: tuple[Lost, ...]

    def plan(self, untrained: Mapping[str, str] | None = None) -> tuple[Plan, list[Lost]]:
        """Return the plan by what is trained now, and what can't be in it.

        Args:
            untrained: Of trainings that failed, fingerprint -> why. None plans adapters that are
                still to be trained as if they were there.

        Raises:
            ConfigError: A prompt fits none of the models, or not the data.
        """
        facts, not_trained = with_trained(self.facts, self.trainings, untrained)
        store = absolute(self.config.run.store)
        plan = build_plan(self.config, self.data.examples, facts, store)
        return plan, [*self.lost, *not_trained, *plan.lost]


def prepare(
    config: SweepConfig, auto: Callable[[ClusterConfig], str | None] = auto_here
) -> Prepared:
    """Read the data and look for models and adapters.

    Args:
        config: The sweep.
        auto: Says what precision `auto` is where adapters are trained.

    Raises:
        RayxaiError: The data or all models are unusable, or no training's prompt fits a model.
    """
    data = load_examples(data_source(config))
    facts, lost = facts_of(config)
    store = absolute(config.run.store)
    trainings, unfit = plan_trainings(config, facts, data.examples, store, auto)
    return Prepared(config, data, facts, tuple(trainings), (*lost, *unfit))
