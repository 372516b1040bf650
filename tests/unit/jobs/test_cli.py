from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from typer.testing import CliRunner

from jobs.cli import app, read_config
from jobs.codes import guarded
from tests.unit.fake_sweep import raw_sweep

ROOT = Path(__file__).resolve().parents[3]

SURFACE: dict[str, list[str]] = {
    "run": ["CONFIG", "--out", "--set", "--model", "--data"],
    "plan": ["CONFIG", "--out", "--set", "--model", "--data"],
    "finetune": ["CONFIG", "--set"],
    "status": ["RUN"],
    "report": ["RUN"],
    "explain": ["--text", "--explainer", "--config", "--model", "--samples", "--set", "--json"],
    "doctor": [],
    "schema": ["--out"],
    "bench scoring": [
        "--samples", "--model", "--data", "--field", "--texts", "--words", "--prompt", "--most",
        "--device", "--json",
    ],
    "bench explainers": [
        "--samples", "--repeats", "--model", "--prompt", "--device", "--hosts", "--json",
    ],
    "bench estimators": [
        "--texts", "--words", "--seeds", "--model", "--data", "--field", "--device", "--json",
    ],
    "bench overhead": ["--units", "--samples", "--against-process", "--json"],
    "bench memory": ["--model", "--prompt", "--device", "--json"],
    "bench all": ["--samples", "--model", "--device", "--json"],
}  # fmt: skip
"""Scripts and documents hang on these names: add to them, but take none away."""


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def one_line(result: Any) -> str:
    """Return the error a user sees, which is one line and no traceback."""
    assert result.exit_code == 3
    assert isinstance(result.exception, SystemExit)
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path / "sweep.yaml", tmp_path)


def write(path: Path, folder: Path, **changes: Any) -> Path:
    raw = raw_sweep(
        {"name": "kernel_shap", "num_samples": 32},
        "occlusion",
        run={"name": "t", "out": str(folder / "run"), "store": str(folder / "store")},
        data={"path": "bundled:reviews", "id": "id", "limit": 4},
        **changes,
    )
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def test_surface_is_frozen() -> None:
    group: Any = typer.main.get_command(app)
    commands = dict(group.commands)
    commands |= {f"bench {name}": c for name, c in commands.pop("bench").commands.items()}
    found = {
        name: [p.metavar if p.param_type_name == "argument" else p.opts[0] for p in c.params]
        for name, c in commands.items()
    }
    assert found == SURFACE


@pytest.mark.parametrize("command", SURFACE)
def test_every_command_has_help(command: str) -> None:
    result = call(*command.split(), "--help")
    assert result.exit_code == 0
    for name in SURFACE[command]:
        assert name in result.stdout


class TestExitCodes:
    @pytest.mark.parametrize("command", ["run", "plan"])
    def test_missing_file(self, command: str, tmp_path: Path) -> None:
        line = one_line(call(command, str(tmp_path / "none.yaml")))
        assert "none.yaml: No such file or directory" in line

    @pytest.mark.parametrize("command", ["run", "plan"])
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ("data.limt=3", "data.limt: unknown key 'limt'; did you mean 'limit'?"),
            ("explainers.0.num_sample=3", "did you mean 'num_samples'?"),
            ("explainers.0.name=kernelshap", "did you mean 'kernel_shap'?"),
            ("prompt.template=nothing", "prompt.template"),
            ("prompt.labels={negative: ' no', positive: ' none'}", "prompt.labels"),
            ("models.0.path=fake:linaer", "fake:linear"),
            ("models.0.options.wieghts={}", "'wieghts'"),
            ("data.path=nowhere.jsonl", "nowhere.jsonl"),
            ("data.inputs.text=txt", "txt"),
            ("run", "--set key.subkey=value"),
        ],
    )
    def test_bad_input(self, config: Path, command: str, change: str, said: str) -> None:
        assert said in one_line(call(command, str(config), "--set", change))
        assert not (config.parent / "run").exists()

    def test_empty_data(self, config: Path, tmp_path: Path) -> None:
        (tmp_path / "empty.jsonl").write_text("")
        line = one_line(call("plan", str(config), "--data", str(tmp_path / "empty.jsonl")))
        assert "no usable row" in line

    def test_unknown_model(
        self, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        result = call("plan", str(config), "--model", str(tmp_path / "gone"))
        assert result.exit_code == 3
        assert "gone" in result.stderr
        assert "Traceback" not in result.stderr

    def test_run_folder_of_something_else(self, config: Path, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "notes.txt").write_text("x")
        assert "--out" in one_line(call("plan", str(config)))

    @pytest.mark.parametrize("command", ["status", "report"])
    def test_no_run(self, command: str, tmp_path: Path) -> None:
        assert "run" in one_line(call(command, str(tmp_path)))

    @pytest.mark.parametrize(
        "arguments",
        [["run"], ["run", "a", "--nope"], ["frobnicate"], ["explain"], ["explain", "--text"],
         ["explain", "--text", "a", "--samples", "0"],
         ["explain", "--text", "a", "--samples", "x"]],
    )  # fmt: skip
    def test_a_wrong_command_line_is_not_some_failed_examples(self, arguments: list[str]) -> None:
        """2 would say that the sweep ran and some examples failed."""
        result = call(*arguments)
        assert result.exit_code == 3
        assert "Error" in result.stderr

    def test_stopped_by_the_user(self, capsys: pytest.CaptureFixture[str]) -> None:
        def action() -> int:
            raise KeyboardInterrupt

        assert guarded(action) == 3
        assert "stopped" in capsys.readouterr().err

    def test_a_bug_keeps_its_traceback(self) -> None:
        def action() -> int:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            guarded(action)


def test_options_stand_in_for_keys(config: Path) -> None:
    found = read_config(
        config, ["models.0.precision=bf16", "data.limit=2"], Path("a b"), "fake:and_or", "x.csv"
    )
    assert found.run.out == "a b"
    assert [(m.path, m.precision) for m in found.models] == [("fake:and_or", "bf16")]
    assert (found.data.path, found.data.limit) == ("x.csv", 2)


def test_plan_prints_counts(config: Path) -> None:
    result = call("plan", str(config))
    assert result.exit_code == 0
    assert "4 examples of 240 in bundled:reviews; 1 units, 0 of them done" in result.stdout
    assert "linear|fp32|review" in result.stdout
    assert "evaluations" in result.stdout


class TestExplain:
    def test_json(self) -> None:
        result = call(
            "explain",
            "--text",
            "so good",
            "--model",
            "fake:linear",
            "--explainer",
            "exact",
            "--json",
        )
        assert result.exit_code == 0
        found = json.loads(result.stdout)
        assert [f["text"] for f in found["features"]] == ["so", "good"]
        assert [f["value"] for f in found["features"]] == pytest.approx([0.0, 1.0], abs=2e-6)
        assert found["prediction"] == "positive"

    def test_unknown_explainer(self) -> None:
        line = one_line(call("explain", "--text", "a", "--explainer", "limee"))
        assert "did you mean 'lime'?" in line

    def test_samples_without(self) -> None:
        line = one_line(call("explain", "--text", "a", "--explainer", "exact", "--samples", "9"))
        assert "--samples: exact" in line


class TestSchema:
    def test_to_standard_output(self) -> None:
        schema = json.loads(call("schema").stdout)
        for file in (ROOT / "configs").glob("*.yaml"):
            jsonschema.validate(yaml.safe_load(file.read_text(encoding="utf-8")), schema)

    def test_to_a_file(self, tmp_path: Path) -> None:
        result = call("schema", "--out", str(tmp_path / "sweep.schema.json"))
        assert (result.exit_code, result.stdout) == (0, "")
        assert json.loads((tmp_path / "sweep.schema.json").read_text())["type"] == "object"


def test_as_a_module_without_loading_what_help_does_not_need() -> None:
    code = (
        "import sys; sys.argv = ['rayxai', '--help']\n"
        "from jobs.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules, 'ray' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "0 False False"
