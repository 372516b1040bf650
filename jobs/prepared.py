"""What is known of a sweep before anything runs: data, models, trainings, the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.config import ClusterConfig, SweepConfig
from engine.data import LoadedData, load_examples
from engine.facts import Lost
from engine.plan import Plan, build_plan, data_source
from jobs.auto_precision import auto_here
from jobs.facts import facts_of
from jobs.folders import absolute
from jobs.training_plan import plan_trainings, with_trained


def prepare(
    config: SweepConfig,
    untrained: Mapping[str, str] | None = None,
    auto: Callable[[ClusterConfig], str | None] = auto_here,
) -> tuple[Plan, LoadedData, list[Lost]]:
    """Return the plan, the data with its failures, and models and adapters that can't be had.

    Args:
        config: The sweep.
        untrained: Of trainings that failed, fingerprint -> why. None plans adapters that are still
            to be trained as if they were there.
        auto: Says what precision `auto` is where adapters are trained.

    Raises:
        RayxaiError: The data or all models are unusable, or a prompt doesn't fit.
    """
    data = load_examples(data_source(config))
    facts, lost = facts_of(config)
    store = absolute(config.run.store)
    trainings, unfit = plan_trainings(config, facts, data.examples, store, auto)
    facts, not_trained = with_trained(facts, trainings, untrained)
    plan = build_plan(config, data.examples, facts, store)
    return plan, data, [*lost, *unfit, *not_trained, *plan.lost]
