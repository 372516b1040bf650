from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import load_config
from engine.errors import ConfigError
from jobs.each_model import each_model
from tests.unit.fake_sweep import sweep

ROOT = Path(__file__).resolve().parents[3]


def test_entries_of_one_model_stay_together_and_are_read_back() -> None:
    path = ROOT / "configs" / "families.yaml"
    whole = load_config(path)
    found = dict(each_model(whole))
    assert list(found) == ["SmolLM2-135M", "Gemma-3-270M"]
    for name, override in found.items():
        own = load_config(path, [override])
        assert own.models == [model for model in whole.models if model.label == name]
        assert own.model_copy(update={"models": whole.models}) == whole


def test_names_become_folders() -> None:
    models = [{"path": "fake:linear", "name": "a b/ü"}, {"path": "fake:planted", "name": ".x"}]
    assert [name for name, _ in each_model(sweep(models=models))] == ["a_b_", "x"]
    twice = [{"path": "fake:linear", "name": "a b"}, {"path": "fake:linear", "name": "a_b"}]
    with pytest.raises(ConfigError, match="'a b' and 'a_b' would have one folder"):
        list(each_model(sweep(models=twice)))


def test_the_program_takes_overrides() -> None:
    command = [sys.executable, "-m", "jobs.each_model", "configs/fake.yaml"]
    models = 'models=[{"path": "fake:planted"}, {"path": "fake:and_or"}]'
    done = subprocess.run([*command, models], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [name for name, _ in lines] == ["fake_planted", "fake_and_or"]
    assert json.loads(lines[0][1].removeprefix("models=")) == [{"path": "fake:planted"}]
    done = subprocess.run(command[:-1], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "give a sweep" in done.stderr
