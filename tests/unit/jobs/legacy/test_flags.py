"""Every flag that the originals document parses, has the documented default, and acts."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.config import dump_config
from engine.errors import ConfigError
from jobs.legacy import flags, sweeps

TABLE = Path(__file__).with_name("flags.tsv")


class Command(NamedTuple):
    parser: Callable[[], argparse.ArgumentParser]
    run: Callable[[argparse.Namespace], sweeps.LegacyRun]


COMMANDS = {
    "run_pipeline_modular": Command(flags.modular_parser, sweeps.modular_run),
    "xai": Command(flags.xai_parser, sweeps.xai_run),
    "shap_comparison": Command(flags.shap_parser, sweeps.shap_run),
}
OURS = ("-h", "--train-data", "--eval-data", "--set", "--num-samples")
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
NAMES = [f"{row['command']} {row['flag']}" for row in ROWS]
TYPES: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "count": flags.count,
    "bool": lambda text: text == "True",
    "ints": lambda text: [int(n) for n in text.split()],
}


def resolved(command: str, *arguments: str) -> sweeps.LegacyRun:
    return COMMANDS[command].run(COMMANDS[command].parser().parse_args(list(arguments)))


def plain(run: sweeps.LegacyRun) -> dict[str, Any]:
    return {**dump_config(run.sweep), "token": run.token}


def at(values: Any, place: str) -> Any:
    for part in place.split("."):
        values = values[int(part)] if isinstance(values, list) else values[part]
    return values


def given(row: dict[str, str]) -> list[str]:
    if row["type"] == "bool":
        return [row["flag"] if row["given"] == "True" else row["flag"].replace("--", "--no-", 1)]
    return [row["flag"], *row["given"].split()]


def others(row: dict[str, str]) -> list[str]:
    """Return what must be on for a flag to matter."""
    needs_training = row["changes"].startswith("finetune.") and row["command"] == "shap_comparison"
    return ["--finetune"] if needs_training else []


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGINGFACE_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_the_default_is_the_documented_one(row: dict[str, str]) -> None:
    options = COMMANDS[row["command"]].parser().parse_args([])
    value = getattr(options, row["flag"].removeprefix("--").replace("-", "_"), None)
    assert value == (None if row["default"] == "None" else TYPES[row["type"]](row["default"]))


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_it_changes_what_it_says(row: dict[str, str]) -> None:
    before = plain(resolved(row["command"], *others(row)))
    after = plain(resolved(row["command"], *others(row), *given(row)))
    assert at(after, row["changes"]) != at(before, row["changes"])


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["type"] == "bool"], ids=lambda row: row["flag"]
)
def test_every_switch_goes_both_ways(row: dict[str, str]) -> None:
    name = row["flag"].removeprefix("--")
    on, off = (resolved(row["command"], f"--{prefix}{name}") for prefix in ("", "no-"))
    assert at(plain(on), row["changes"]) != at(plain(off), row["changes"])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_table_has_every_flag(command: str) -> None:
    known = {
        action.option_strings[0]
        for action in COMMANDS[command].parser()._actions
        if action.option_strings[0] not in OURS
    }
    assert known == {row["flag"] for row in ROWS if row["command"] == command}


@pytest.mark.parametrize("text", ["None", "none", "-1", "0", "all"])
@pytest.mark.parametrize(
    ("command", "flag", "place"),
    [
        ("run_pipeline_modular", "--train-size", "finetune.0.data.limit"),
        ("xai", "--train-size", "finetune.0.data.limit"),
        ("xai", "--eval-sample-size", "data.explain_limit"),
        ("shap_comparison", "--eval-subset", "data.limit"),
    ],
)
def test_all(command: str, flag: str, place: str, text: str) -> None:
    assert at(plain(resolved(command, flag, text)), place) is None


def test_a_token_stays_out_of_everything_that_is_printed_or_written() -> None:
    run = resolved("xai", "--huggingface-token", "hf_secret")
    assert run.token == "hf_secret"
    assert "hf_secret" not in repr(run)
    assert "hf_secret" not in json.dumps(dump_config(run.sweep))


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGINGFACE_TOKEN"])
def test_a_token_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "hf_other")
    assert resolved("shap_comparison").token == "hf_other"
    assert resolved("shap_comparison", "--huggingface-token", "hf_own").token == "hf_own"


def test_two_precisions_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="either --load-in-4bit or --load-in-8bit"):
        resolved("xai", "--load-in-4bit", "--load-in-8bit")


def test_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flags.xai_parser().parse_args(["--train-size", "many"])
    assert "neither a whole number nor None" in capsys.readouterr().err


def test_labels_of_a_space_are_scored_as_digits() -> None:
    prompt = resolved("shap_comparison", "--label-space", "0", "1", "2").sweep.prompts[0]
    assert prompt.labels == {"0": " 0", "1": " 1", "2": " 2"}
    assert "one of the digits 0, 1, 2" in str(prompt.template)


def test_zero_shot_is_the_base_with_its_adapters_off() -> None:
    [model] = resolved("xai").sweep.models
    assert [adapter.label for adapter in model.adapters] == ["none", "lora"]
    [alone] = resolved("xai", "--no-finetune").sweep.models
    assert [adapter.label for adapter in alone.adapters] == ["none"]


def test_files_in_place_of_the_hub() -> None:
    sweep = resolved("xai", "--train-data", "a.jsonl", "--eval-data", "b.jsonl").sweep
    assert (sweep.data.path, sweep.data.split) == ("b.jsonl", None)
    assert (sweep.finetune[0].data.path, sweep.finetune[0].data.split) == ("a.jsonl", None)


@pytest.mark.parametrize("command", ["run_pipeline_modular", "xai"])
def test_budgets_are_small_and_can_be_set(command: str) -> None:
    """The original has 50 and 40: this project's own defaults would take a hundred times that."""

    def budgets(*arguments: str) -> dict[str, int]:
        explainers = resolved(command, *arguments).sweep.explainers
        return {e.label: e.params["num_samples"] for e in explainers if "num_samples" in e.params}

    assert budgets() == {"lime": 512, "kernel_shap": 512}
    assert budgets("--num-samples", "64") == {"lime": 64, "kernel_shap": 64}


def test_keys_of_the_sweep_can_be_set() -> None:
    assert resolved("xai", "--set", "cluster.hosts=2").sweep.cluster.hosts == 2
