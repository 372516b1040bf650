"""The `rayxai` command: run, plan, status, report, explain, doctor, schema."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from engine.errors import RayxaiError
from jobs.codes import ABORTED

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


def guarded(action: Callable[[], int]) -> int:
    """Run an action; print a user's error without a traceback and return the exit code."""
    try:
        return action()
    except RayxaiError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        Console(stderr=True, soft_wrap=True).print(
            f"error: {place}{error.strerror or error}", style="red", markup=False
        )
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command continues where this one ended")
    return ABORTED


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


bench_app = typer.Typer(
    help="Measure scoring, explainers, estimators and the scheduler on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(bench_app, name="bench")

BenchModel = Annotated[str, typer.Option("--model", help="Hub id or local folder.")]
BenchData = Annotated[str, typer.Option("--data", help="Where the texts are.")]
FieldOption = Annotated[str, typer.Option("--field", help="Column of the text.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="File the figures are written to.", metavar="FILE")
]
SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"


@bench_app.command("scoring")
def bench_scoring(
    samples: Annotated[int, typer.Option("--samples", help="Perturbations a text.", min=2)] = 192,
    model: BenchModel = SMOLLM,
    data: BenchData = "bundled:reviews",
    field: FieldOption = "text",
    texts: Annotated[int, typer.Option("--texts", help="Number of texts.", min=1)] = 6,
    words: Annotated[
        tuple[int, int], typer.Option("--words", help="Fewest and most words of a text.")
    ] = (10, 25),
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="chat or short; both if not given.")
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(
            "--most",
            help="Most prompts a text that the padded rungs and vLLM run; the rest is counted at "
            "their rate.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    json_: JsonOption = None,
) -> None:
    """Score perturbations by every rung from padded batches to the packed trie, and vLLM."""

    def action() -> int:
        from jobs.bench.scoring import run as measure
        from jobs.bench.workload import write_json

        figures = measure(
            model,
            data=data,
            field=field,
            words=words,
            n_texts=texts,
            samples=samples,
            prompts=prompt or ("chat", "short"),
            most=most,
            device=device,
            console=Console(),
        )
        if json_ is not None:
            write_json(figures, json_)
        return 0

    raise typer.Exit(guarded(action))


@bench_app.command("explainers")
def bench_explainers(
    samples: Annotated[
        int | None,
        typer.Option("--samples", help="Of every explainer; each library's default if not given."),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", help="Times each is taken.", min=1)] = 3,
    model: BenchModel = SMOLLM,
    prompt: Annotated[str, typer.Option("--prompt", help="chat or short.")] = "chat",
    json_: JsonOption = None,
) -> None:
    """Explain two texts by rayxai and by lime, shap and captum in a loop over the same model."""

    def action() -> int:
        from jobs.bench.explainers import run as measure
        from jobs.bench.workload import show_figures, write_json

        console = Console(soft_wrap=True)
        figures = measure(samples, repeats, model, prompt, say=console.print)
        show_figures(console, figures)
        if json_ is not None:
            write_json(figures, json_)
        return 0

    raise typer.Exit(guarded(action))


@bench_app.command("estimators")
def bench_estimators(
    texts: Annotated[int, typer.Option("--texts", help="Number of texts.", min=1)] = 30,
    words: Annotated[
        tuple[int, int], typer.Option("--words", help="Fewest and most words of a text.")
    ] = (9, 12),
    seeds: Annotated[int, typer.Option("--seeds", help="Seeds a text.", min=2)] = 10,
    model: BenchModel = SMOLLM,
    data: BenchData = "bundled:reviews",
    field: FieldOption = "text",
    device: DeviceOption = "auto",
    json_: JsonOption = None,
) -> None:
    """Measure errors against exact Shapley values, and how often intervals cover them."""

    def action() -> int:
        from jobs.bench.estimators import run as measure
        from jobs.bench.workload import write_json

        figures = measure(
            model,
            data=data,
            field=field,
            words=words,
            n_texts=texts,
            seeds=seeds,
            device=device,
            console=Console(soft_wrap=True),
        )
        if json_ is not None:
            write_json(figures, json_)
        return 0

    raise typer.Exit(guarded(action))


@bench_app.command("overhead")
def bench_overhead(
    units: Annotated[
        int, typer.Option("--units", help="Units that go through Ray; 0 leaves that part out.")
    ] = 4000,
    json_: JsonOption = None,
) -> None:
    """Measure what an evaluation and a unit cost outside the model, by the fake host."""

    def action() -> int:
        from jobs.bench.overhead import run as measure
        from jobs.bench.ray_overhead import run as measure_ray
        from jobs.bench.workload import show_figures, write_json

        console = Console(soft_wrap=True)
        figures = measure()
        if units:
            figures |= measure_ray(units)
        show_figures(console, figures)
        if json_ is not None:
            write_json(figures, json_)
        return 0

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


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
