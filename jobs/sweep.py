"""The main job: `python -m jobs.sweep configs/demo.yaml`, the same as `rayxai run`.

Exit codes: 0 all done, 2 some examples failed, 3 aborted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from rich.console import Console

from cluster.dispatch import Dispatcher
from cluster.fleet import Fleet
from cluster.remotes import PairRef
from cluster.resources import Layout, lay_out
from cluster.session import ray_session
from engine import schema
from engine.commits import CommitLog
from engine.config import SweepConfig
from engine.context import Unit
from engine.data import LoadedData, example_key
from engine.errors import ModelError, RunFolderError
from engine.facts import Lost
from engine.plan import Pair, Plan, model_key, with_stored
from engine.results import UnitResult, result_digest
from engine.seeds import digest
from engine.step import content_free_examples
from engine.store import index_store, write_units
from jobs.auto_precision import auto_there
from jobs.codes import ABORTED, DONE, SOME_FAILED
from jobs.facts import host_spec
from jobs.finetune import train_all
from jobs.folders import run_folder
from jobs.host_record import note_host, note_rate
from jobs.prepared import Prepared, prepare
from jobs.progress import SweepProgress
from jobs.runfolder import RunFolder, now


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call of `run_sweep` came to.

    Attributes:
        folder: The run folder.
        code: The exit code.
        evaluations: Sequences scored by this call.
    """

    folder: Path
    code: int
    evaluations: int


def run_sweep(config: SweepConfig, console: Console) -> Outcome:
    """Run a sweep, or what is left of it, and write its tables and report.

    Raises:
        RayxaiError: Nothing could be done, or the sweep had to stop; the same call continues it.
    """
    started = time.monotonic()
    prepared = prepare(config, auto_there)
    data = prepared.data
    plan, missing = prepared.plan()
    folder = RunFolder(run_folder(config))
    folder.check(plan)
    trains = any(pair.is_untrained for pair in plan.pairs.values())
    lost = _early_failures(plan, data, missing)
    if not trains and _is_finished(folder, folder.as_cut(plan), lost):
        return _finished_already(folder, plan, console)
    log = _take_lease(folder)
    try:
        if trains:
            before = folder.record.get("status")
            untrained = _train(prepared, folder, plan, console)
            plan, missing = prepared.plan(untrained)
            folder.check(plan)
            lost = _early_failures(plan, data, missing)
            if before == "finished" and _is_complete(folder, folder.as_cut(plan), lost):
                folder.update(status=before)  # what could not be trained then can't be now
                return _finished_already(folder, plan, console)
        plan = folder.open(plan)
        left = folder.left(plan)
        folder.update(
            status="running",
            adapters=adapters_of(plan),
            rows_with_other_labels=data.n_other_labels,
        )
        _commit_directly(folder, log, lost)
        evaluations = run_units(plan, left, folder, log, console) if left else 0
        if left:
            seconds = time.monotonic() - started
            console.print(
                f"{evaluations:,} evaluations in {seconds:.0f} s "
                f"({evaluations / seconds:.0f}/s, start of Ray and loading included)"
            )
        code = _finish(folder, plan, console)
    except BaseException:
        if log.is_held() and folder.record:
            folder.update(status="stopped", code=ABORTED, stopped=now())
        raise
    finally:
        log.close()
    return Outcome(folder.path, code, evaluations)


def _finished_already(folder: RunFolder, plan: Plan, console: Console) -> Outcome:
    code = int(folder.record["code"])
    console.print(f"Finished already: {len(plan.units)} units are committed, nothing to do.")
    if code:
        console.print("Some examples failed: they are listed in the report and in failures/.")
    console.print(f"Report: {folder.path / 'report.html'}", soft_wrap=True)
    return Outcome(folder.path, code, 0)


def _train(prepared: Prepared, folder: RunFolder, plan: Plan, console: Console) -> dict[str, str]:
    """Train what isn't trained, on record; return why some failed, by fingerprint."""
    trainings = prepared.trainings
    folder.open(plan)
    record = [{"place": t.place, "steps": t.steps, "folder": str(t.folder)} for t in trainings]
    folder.update(status="training", trainings=record)
    return train_all(prepared.config, trainings, console)


def adapters_of(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return digest and folder of every adapter, and warnings, by model and name."""
    found: dict[str, dict[str, Any]] = {}
    for pair in plan.pairs.values():
        if pair.adapter is not None:
            name = pair.context.factors["adapter"]
            found.setdefault(model_key(pair.model), {})[name] = {
                key: value for key, value in pair.adapter._asdict().items() if value
            }
    return found


def _take_lease(folder: RunFolder) -> CommitLog:
    try:
        return CommitLog(folder.path)
    except OSError as error:
        raise RunFolderError(
            f"{folder.path}: can't be made ({error.strerror}); choose another --out"
        ) from None


def _is_finished(folder: RunFolder, plan: Plan, lost: UnitResult) -> bool:
    """Return whether there is nothing to run, to note or to write."""
    return folder.record.get("status") == "finished" and _is_complete(folder, plan, lost)


def _is_complete(folder: RunFolder, plan: Plan, lost: UnitResult) -> bool:
    """Return whether all units and the failures before them are committed, and reported."""
    if folder.left(plan):
        return False
    noted = folder.commits().get(lost.unit)
    report = folder.path / "report.html"
    return noted is not None and noted.digest == result_digest(lost.tables) and report.exists()


def run_units(
    plan: Plan,
    left: Sequence[Unit],
    folder: RunFolder,
    log: CommitLog,
    console: Console,
    watch: Callable[[Fleet], AbstractContextManager[Any]] = nullcontext,
) -> int:
    """Run units to their commits, model by model; return the sequences scored.

    Args:
        plan: What they belong to.
        left: The units.
        folder: Of the run, opened.
        log: Its commit log.
        console: Where progress is shown.
        watch: Makes of a model's loaded hosts what is entered while its units run.

    Raises:
        ModelError: No model can be loaded.
    """
    wanted = plan.config.cluster
    store_logs: dict[str, CommitLog] = {}
    sequences = 0
    broken: dict[str, str] = {}
    with ray_session(wanted.address, wanted.num_cpus) as offered:
        layouts = {
            spread: lay_out(offered, wanted, spread)
            for spread in {p.model.tensor_parallel for p in plan.pairs.values()}
        }
        try:
            with SweepProgress(console, plan.config.run.name, len(left)) as progress:
                for model in {model_key(p.model): p.model for p in plan.pairs.values()}.values():
                    units = [u for u in left if plan.pairs[u.pair].model == model]
                    if not units:
                        continue
                    try:
                        layout = layouts[model.tensor_parallel]
                        sequences += _run_model(
                            plan,
                            units,
                            layout,
                            offered.cpus,
                            folder,
                            log,
                            store_logs,
                            progress,
                            watch,
                        )
                    except ModelError as error:
                        broken[model_key(model)] = str(error)
                        _give_up_model(plan, folder, log, model_key(model), str(error))
                        continue
        finally:
            for store_log in store_logs.values():
                store_log.close()
    if broken and len(broken) == len({model_key(p.model) for p in plan.pairs.values()}):
        raise ModelError("\n".join(f"{name}: {why}" for name, why in broken.items()))
    return sequences


def _run_model(
    plan: Plan,
    units: Sequence[Unit],
    layout: Layout,
    cpus: float,
    folder: RunFolder,
    log: CommitLog,
    store_logs: dict[str, CommitLog],
    progress: SweepProgress,
    watch: Callable[[Fleet], AbstractContextManager[Any]],
) -> int:
    from jobs.stages import REMOTES, HostActor, host_arguments

    pairs = {u.pair: plan.pairs[u.pair] for u in units}
    model = next(iter(pairs.values())).model
    threads = plan.config.cluster.threads
    adapters = [pair.adapter for pair in pairs.values() if pair.adapter is not None]
    spec = host_spec(model, adapters=adapters)
    fleet = Fleet(HostActor, lambda: host_arguments(spec, threads, layout.per_node), layout)

    def store_log(path: str) -> CommitLog:
        if path not in store_logs:
            store_logs[path] = CommitLog(path, exclusive=False)
        return store_logs[path]

    try:
        info = fleet.start()
        weights = next(iter(pairs.values())).weights
        if info.weights != weights:
            raise ModelError(
                f"the host found other weights ({info.weights}) than the plan ({weights}); give a "
                "local folder that all nodes have, or a hub model's revision"
            )
        if f"model:{model_key(model)}" in folder.commits():  # it could not be loaded last time
            _commit_directly(folder, log, _failures_result(f"model:{model_key(model)}", []))
        note_host(folder, model_key(model), info, layout, fleet.ask("gpu_ids"))
        shared = {
            key: PairRef(ray.put(pair.context), pair.context.store, pair.context.adapter)
            for key, pair in pairs.items()
        }
        dispatcher = Dispatcher(
            REMOTES,
            fleet,
            str(folder.path),
            log,
            store_log,
            shared,
            plan.config.cluster.attempts,
            plan.config.cluster.commit_seconds,
            progress,
            cpus,
        )
        began = time.monotonic()
        with watch(fleet):
            sequences = dispatcher.run(_with_store(pairs, units))
        note_rate(folder, model_key(model), fleet, time.monotonic() - began)
        return sequences
    finally:
        fleet.stop()


def _with_store(pairs: Mapping[str, Pair], units: Sequence[Unit]) -> list[Unit]:
    """Return the units with what the store has of their examples."""
    result = []
    for key, pair in pairs.items():
        index = index_store(pair.context.store)
        blanks = [example_key(e.fields) for e in content_free_examples(pair.context)]
        result += [with_stored(u, index, blanks) for u in units if u.pair == key]
    return result


def _early_failures(plan: Plan, data: LoadedData, missing: Sequence[Lost]) -> UnitResult:
    """Return the failures that were there before any unit: bad rows, models that aren't found."""
    name = plan.config.data.table_name
    rows: list[dict[str, Any]] = [
        {
            "unit": "",
            "data": name,
            "example": f.id,
            "stage": "data",
            "code": f.code,
            "message": f.message,
        }
        for f in data.failures
    ]
    rows += [
        {
            "unit": "",
            "data": name,
            "model": lost.model,
            "precision": lost.precision,
            "adapter": lost.adapter or None,
            "prompt": lost.prompt or None,
            "stage": "model",
            "code": lost.code,
            "message": lost.message,
        }
        for lost in missing
    ]
    return _failures_result("before", rows)


def _failures_result(unit: str, rows: Sequence[dict[str, Any]]) -> UnitResult:
    tables = {key: s.empty_table() for key, s in schema.RESULTS.items()}
    for row in rows:
        row["unit"] = unit
    tables["failures"] = schema.rows_to_table(rows, schema.FAILURES)
    return UnitResult(unit, 1, tables)


def _give_up_model(plan: Plan, folder: RunFolder, log: CommitLog, key: str, message: str) -> None:
    label, precision = key.rsplit("/", 1)
    row = {
        "data": plan.config.data.table_name,
        "model": label,
        "precision": precision,
        "stage": "model",
        "code": "not_loaded",
        "message": message,
    }
    _commit_directly(folder, log, _failures_result(f"model:{key}", [row]), failed=True)


def _commit_directly(
    folder: RunFolder, log: CommitLog, result: UnitResult, failed: bool = False
) -> None:
    stem = f"{log.driver}-{digest([result.unit])}"
    commits = write_units(folder.path, stem, [result])
    log.append([c._replace(failed=failed) for c in commits])


def _finish(folder: RunFolder, plan: Plan, console: Console) -> int:
    """Settle the exit code, then write tables and report."""
    from jobs.analyze import analyze

    failures = sum(
        1 for c in folder.commits().values() for part in c.parts if part.table == "failures"
    )
    code = SOME_FAILED if failures or folder.left(plan) else DONE
    folder.update(code=code, finished=now())
    analyze(folder.path, console)
    folder.update(status="finished")
    return code


def main() -> None:
    """Run `rayxai run` with this process's arguments."""
    from jobs.cli import app

    app(["run", *sys.argv[1:]])


if __name__ == "__main__":
    main()
