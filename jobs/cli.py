"""The `rayxai` command: run, plan, finetune, status, report, explain, doctor, schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from jobs.bench.commands import bench_app
from jobs.codes import ABORTED, guarded

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Of the click that typer brings along, or of the installed one in its older versions."""


class _Commands(TyperGroup):
    """Ends with 3 on a wrong command line: 2 says that some examples failed."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _aborting():
            return super().make_context(*args, **kwargs)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        with _aborting():
            return super().invoke(*args, **kwargs)


@contextmanager
def _aborting() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        error.exit_code = ABORTED  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    name="rayxai",
    cls=_Commands,
    help="Evaluate explanations of language models: what they say, what they cost, whether to "
    "believe them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ConfigArgument = Annotated[Path, typer.Argument(help="Sweep as a YAML file.", metavar="CONFIG")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key, for example --set data.limit=10.", metavar="K=V"),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Run folder; runs/<name> if not given.")
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Hub id, local folder or fake:NAME in place of the models."),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="File, bundled:reviews or data set in place of data.path."),
]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")]


def read_config(
    path: Path,
    overrides: Sequence[str] | None,
    out: Path | None = None,
    model: str | None = None,
    data: str | None = None,
) -> Any:
    """Return the checked sweep with the command line's overrides."""
    from engine.config import load_config

    changes = []
    if out is not None:
        changes.append(f"run.out={json.dumps(str(out))}")
    if model is not None:
        changes.append(f"models={json.dumps([{'path': model}])}")
    if data is not None:
        changes.append(f"data.path={json.dumps(data)}")
    # --set comes last, so that it can name what the other options brought
    return load_config(path, [*changes, *(overrides or [])])


@app.command()
def run(
    config: ConfigArgument,
    out: OutOption = None,
    set_: SetOption = None,
    model: ModelOption = None,
    data: DataOption = None,
) -> None:
    """Run a sweep, or finish one that was cut off, and write its report."""

    def action() -> int:
        from jobs.sweep import run_sweep

        config_ = read_config(config, set_, out, model, data)
        return run_sweep(config_, Console(soft_wrap=True)).code

    raise typer.Exit(guarded(action))


@app.command()
def plan(
    config: ConfigArgument,
    out: OutOption = None,
    set_: SetOption = None,
    model: ModelOption = None,
    data: DataOption = None,
) -> None:
    """Print units, evaluations, tokens and an estimate of the time; loads no model."""

    def action() -> int:
        from jobs.estimate import print_plan

        print_plan(read_config(config, set_, out, model, data), Console(soft_wrap=True))
        return 0

    raise typer.Exit(guarded(action))


@app.command()
def finetune(config: ConfigArgument, set_: SetOption = None) -> None:
    """Train the adapters that a sweep wants, or finish those that were cut off."""

    def action() -> int:
        from jobs.finetune import finetune

        return finetune(read_config(config, set_), Console(soft_wrap=True))

    raise typer.Exit(guarded(action))


@app.command()
def status(run: RunArgument) -> None:
    """Print how far a run is, from its folder alone."""

    def action() -> int:
        from jobs.status import print_status

        return print_status(run, Console(soft_wrap=True))

    raise typer.Exit(guarded(action))


@app.command()
def report(run: RunArgument) -> None:
    """Write tables, figures and report.html of a run again."""

    def action() -> int:
        from jobs.analyze import analyze

        analyze(run, Console(soft_wrap=True))
        return 0

    raise typer.Exit(guarded(action))


@app.command()
def explain(
    text: Annotated[str, typer.Option("--text", help="The text to explain.")],
    explainer: Annotated[
        str, typer.Option("--explainer", help="lime, kernel_shap, exact, …")
    ] = "kernel_shap",
    config: Annotated[
        Path | None, typer.Option("--config", help="Sweep whose model and prompt are used.")
    ] = None,
    model: ModelOption = None,
    samples: Annotated[
        int | None, typer.Option("--samples", help="Number of samples of the explainer.", min=1)
    ] = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Explain one text on the terminal."""

    def action() -> int:
        from jobs.explain import explain_text

        return explain_text(
            text,
            explainer,
            config=config,
            model=model,
            samples=samples,
            overrides=set_ or [],
            as_json=as_json,
            console=Console(),
        )

    raise typer.Exit(guarded(action))


@app.command()
def doctor() -> None:
    """Say what is installed, which device there is, which models are at hand offline."""

    def action() -> int:
        from jobs.doctor import examine

        return examine(Console(soft_wrap=True))

    raise typer.Exit(guarded(action))


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option("--out", help="File; standard output if not given.")
    ] = None,
) -> None:
    """Write the JSON schema of sweep files, for editors."""

    def action() -> int:
        from engine.config import json_schema

        text = json.dumps(json_schema(), indent=2) + "\n"
        if out is None:
            sys.stdout.write(text)
        else:
            out.write_text(text, encoding="utf-8")
        return 0

    raise typer.Exit(guarded(action))


app.add_typer(bench_app, name="bench")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
