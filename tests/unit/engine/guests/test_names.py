from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from engine.config import dump_config, parse_config
from engine.errors import ConfigError
from engine.guests import names
from tests.unit.engine.guests.own_guests import PLACE
from tests.unit.fake_sweep import plan_of, sweep


class TestConfiguration:
    def test_a_guest_explains_probabilities_by_default(self) -> None:
        config = sweep("guest:lime", {"name": "guest:shap.kernel", "target": "log_odds"}, "lime")
        found = [(e.label, e.target) for e in config.explainers]
        assert found == [
            ("guest:lime", "probability"),
            ("guest:shap.kernel", "log_odds"),
            ("lime", "log_odds"),
        ]

    @pytest.mark.parametrize(
        ("explainer", "message"),
        [
            ("guest:limes", "unknown guest 'guest:limes'"),
            ("guest:", "unknown guest"),
            ("guest:a.b", "guest:module:callable"),
            ({"name": "guest:lime", "num_sample": 3}, "no parameter 'num_sample'"),
            ({"name": "guest:lime", "operator": "mask"}, "leave out `operator`"),
            ({"name": "guest:shap.partition", "features": "tokens"}, "leave out `features`"),
            ({"name": "guest:lime", "max_evaluations": 0}, "whole number from 1"),
            ({"name": "guest:lime", "field": "b"}, "no input 'b'"),
            ({"name": "guest:shap.kernel", "field": "text"}, "no parameter 'field'"),
            ({"name": "guest:shap.kernel", "operator": "mask"}, "needs `replacement"),
            ({"name": "guest:any.module:f", "operator": "mask"}, "needs `replacement"),
        ],
    )
    def test_what_is_wrong_is_said(self, explainer: Any, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            sweep(explainer)
        assert message in str(caught.value)

    def test_the_text_is_named_where_there_are_several(self) -> None:
        inputs = {"a": "a", "b": "b"}
        template = "{a} {b}"
        for explainer in ("guest:lime", f"{PLACE}:walk"):
            with pytest.raises(ConfigError, match="one of a, b"):
                sweep(explainer, data__inputs=inputs, prompt__template=template)
        sweep("guest:shap.kernel", data__inputs=inputs, prompt__template=template)

    def test_what_is_written_is_read_back(self) -> None:
        config = sweep("guest:lime", {"name": f"{PLACE}:walk", "operator": "pad", "steps": 3})
        assert parse_config(dump_config(config)) == config

    def test_a_users_module_is_not_imported_to_read_a_configuration(self) -> None:
        sweep("guest:no.such.module:explain")


class TestPlan:
    @pytest.mark.parametrize(
        ("explainer", "message"),
        [
            ("guest:no.such.module:explain", "PYTHONPATH"),
            (f"{PLACE}:missing", "can't be imported"),
            (f"{PLACE}:not_callable", "not callable"),
            ({"name": f"{PLACE}:walk", "paces": 2}, "'paces'"),
        ],
    )
    def test_a_plan_imports_it(self, explainer: Any, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            plan_of(sweep(explainer), ["good"])
        assert message in str(caught.value)

    def test_a_module_that_fails_is_named(self, tmp_path: Path, monkeypatch: Any) -> None:
        (tmp_path / "broken_guest.py").write_text("1 / 0\n", encoding="utf-8")
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        with pytest.raises(ConfigError, match="ZeroDivisionError"):
            plan_of(sweep("guest:broken_guest:explain"), ["good"])


def test_names_and_parameters() -> None:
    assert names.names() == (
        "guest:captum.kernel_shap",
        "guest:lime",
        "guest:shap.kernel",
        "guest:shap.partition",
    )
    assert names.parameters("guest:captum.kernel_shap") == {
        "n_samples": 25,
        "max_evaluations": names.MAX_EVALUATIONS,
    }
    for name in names.names():
        assert "seed" not in names.parameters(name)
