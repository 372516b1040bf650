"""The commands `rayxai bench …`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from actors.waiting import wait_briefly
from jobs.codes import guarded

bench_app = typer.Typer(
    help="Measure scoring, explainers, estimators and the scheduler on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

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
    device: DeviceOption = "auto",
    hosts: Annotated[
        str | None,
        typer.Option("--hosts", help="Numbers of hosts, such as 1,2, to also take through Ray."),
    ] = None,
    json_: JsonOption = None,
) -> None:
    """Explain two texts by rayxai and by lime, shap and captum in a loop over the same model."""

    def action() -> int:
        from jobs.bench.explainers import run as measure
        from jobs.bench.over_hosts import parse_hosts
        from jobs.bench.workload import show_figures, write_json

        console = Console(soft_wrap=True)
        figures = measure(
            samples,
            repeats,
            model,
            prompt,
            device=device,
            hosts=parse_hosts(hosts) if hosts else (),
            say=console.print,
        )
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
    samples: Annotated[
        int, typer.Option("--samples", help="Of each explainer, in this process.", min=2)
    ] = 5000,
    against: Annotated[
        bool, typer.Option("--against-process", help="Also run a real model with Ray and without.")
    ] = False,
    json_: JsonOption = None,
) -> None:
    """Measure what an evaluation and a unit cost outside the model, by the fake host."""

    def action() -> int:
        # as Ray has it for steps: linear algebra of small matrices is slower on several threads
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        # before torch is imported, so that a host in this process waits as one in Ray does
        wait_briefly()
        from jobs.bench.overhead import run as measure
        from jobs.bench.ray_against_process import run as compare_ray
        from jobs.bench.ray_overhead import run as measure_ray
        from jobs.bench.workload import show_figures, write_json

        console = Console(soft_wrap=True)
        figures = measure(samples=samples)
        if units:
            figures |= measure_ray(units)
        if against:
            figures |= compare_ray()
        show_figures(console, figures)
        if json_ is not None:
            write_json(figures, json_)
        return 0

    raise typer.Exit(guarded(action))


@bench_app.command("memory")
def bench_memory(
    model: BenchModel = SMOLLM,
    prompt: Annotated[str, typer.Option("--prompt", help="chat or short.")] = "chat",
    device: DeviceOption = "auto",
    json_: JsonOption = None,
) -> None:
    """Compare the peak memory of a host at 200 and at 5,000 perturbations of a text."""

    def action() -> int:
        from jobs.bench.memory import run as measure
        from jobs.bench.workload import show_figures, write_json

        figures = measure(model, prompt=prompt, device=device)
        show_figures(Console(soft_wrap=True), figures)
        if json_ is not None:
            write_json(figures, json_)
        return 0

    raise typer.Exit(guarded(action))


@bench_app.command("all")
def bench_all(
    samples: Annotated[
        int | None,
        typer.Option("--samples", help="Of the explainers; each library's default if not given."),
    ] = None,
    model: BenchModel = SMOLLM,
    device: DeviceOption = "auto",
    json_: JsonOption = None,
) -> None:
    """Run all other benchmarks, and say which figures are as they should be."""

    def action() -> int:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        from jobs.bench.everything import run as measure
        from jobs.bench.workload import write_json

        figures = measure(model, device, samples, Console())
        if json_ is not None:
            write_json(figures, json_)
        return 1 if figures["failed"] else 0

    raise typer.Exit(guarded(action))
