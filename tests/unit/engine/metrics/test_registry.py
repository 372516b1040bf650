from __future__ import annotations

import pytest

from engine.metrics.registry import REGISTRY, info


def test_every_metric_has_a_direction_a_version_a_source_and_a_title() -> None:
    for name, metric in REGISTRY.items():
        assert metric.name == name
        assert metric.direction in {"higher", "lower", "none"}
        assert metric.definition_version >= 1
        assert metric.source
        assert metric.title


def test_names_and_titles_are_unique() -> None:
    titles = [metric.title for metric in REGISTRY.values()]
    assert len(set(titles)) == len(titles)


def test_an_unknown_metric_says_where_to_add_it() -> None:
    with pytest.raises(KeyError, match="registry"):
        info("no such metric")


@pytest.mark.parametrize(
    ("name", "direction"),
    [("comprehensiveness", "higher"), ("sufficiency", "lower"), ("deletion_auc", "lower")],
)
def test_directions_of_the_deletion_metrics(name: str, direction: str) -> None:
    assert info(name).direction == direction
