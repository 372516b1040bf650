"""The report of a run: one HTML file that needs no network, made from the run's tables and rows.

Everything is chosen by column name and left out where it is missing, so that a run without
explainers, rationales or gold labels still makes a report.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.heatmap import DARK, LIGHT, Theme
from analysis.ink import DARK_SERIES, PRINT
from analysis.report_examples import build_cards
from analysis.report_parts import distinct, number, values_of
from analysis.report_summary import summarize
from analysis.report_tables import build_sections
from analysis.select import rows_of

MOST_FAILURES = 50
_PAGE_COLOURS = {  # light, dark
    "muted": ("#5c6670", "#a7b0b9"),
    "line": ("#d9d6cf", "#383f47"),
    "soft": ("#f0eee9", "#262b32"),
    "accent": ("#0b5cad", "#7db9f0"),
    "positive-line": ("#945000", "#ffb454"),
    "negative-line": ("#0b5cad", "#7db9f0"),
    "good": ("#12603f", "#8fdcb4"),
    "good-soft": ("#dff1e7", "#173628"),
    "bad": ("#9b2318", "#ffb3a7"),
    "bad-soft": ("#fbe5e1", "#472019"),
    # Okabe and Ito (2008), and lighter relatives on dark
    **{f"series-{i}": pair for i, pair in enumerate(zip(PRINT.series, DARK_SERIES, strict=True))},
}
_TEMPLATES = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class ReportInput:
    """What a report is made from.

    Attributes:
        title: Name of the run.
        run_json: The resolved run.json: config, fingerprints, versions, hardware, times.
        tables: The tidy tables by name (performance, faithfulness, …), any of them.
        predictions: Rows of `PREDICTIONS`.
        attributions: Rows of `ATTRIBUTIONS`.
        failures: Rows of `FAILURES`.
    """

    title: str
    run_json: Mapping[str, Any]
    tables: Mapping[str, pl.DataFrame]
    predictions: pl.DataFrame
    attributions: pl.DataFrame
    failures: pl.DataFrame


def write_report(run: ReportInput, path: Path) -> Path:
    """Write the report; links to `tables/` and `figures/` beside it are relative.

    Args:
        run: The run's tables and rows.
        path: The HTML file; its folder is made.

    Returns:
        `path`.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cards, n_explained = build_cards(run.predictions, run.attributions)
    page = environment.get_template("report.html").render(
        run=run,
        css=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        js=Markup((_TEMPLATES / "report.js").read_text(encoding="utf-8")),
        themes={"light": page_colours(LIGHT), "dark": page_colours(DARK)},
        facts=_facts(run),
        summary=summarize(run.tables, run.predictions, run.attributions),
        failures=_failures(run.failures),
        sections=build_sections(run.tables, run.predictions, path.parent),
        cards=cards,
        n_explained=n_explained,
        labels=_labels(run.predictions),
        has_rationale=any(panel.rationale for card in cards for panel in card.panels),
        prompts=[_prompt(p) for p in _config(run).get("prompts") or ()],
        details=_flat({k: v for k, v in run.run_json.items() if k != "config"}),
        config=json.dumps(_config(run), indent=2, ensure_ascii=False, default=str),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def page_colours(theme: Theme) -> dict[str, str]:
    """Return the CSS variables of a theme: its heat colours and the colours of the page around."""
    colours: dict[str, str] = dict(theme._asdict())
    for sign in ("positive", "negative"):
        colour = colours[sign]
        colours[f"{sign}-rgb"] = " ".join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
    return colours | {name: pair[theme is DARK] for name, pair in _PAGE_COLOURS.items()}


# ---- what was run


def _config(run: ReportInput) -> Mapping[str, Any]:
    return run.run_json.get("config") or {}


def _labels(predictions: pl.DataFrame) -> list[str]:
    if "labels" not in predictions.columns:
        return []
    if "continuation" in predictions.columns:  # each its own: nothing to choose examples by
        predictions = predictions.filter(pl.col("continuation").is_null())
    return list(dict.fromkeys(name for names in predictions["labels"].to_list() for name in names))


def _facts(run: ReportInput) -> list[tuple[str, str]]:
    """Return what was run, as (name, text)."""
    models = [
        " · ".join(str(part) for part in parts if part and part != "none")
        for parts in distinct(run.predictions, ("model", "precision", "adapter"))
    ]
    facts = [
        ("Model", ", ".join(models)),
        ("Data", ", ".join(values_of(run.predictions, "data"))),
        ("Prompt", ", ".join(values_of(run.predictions, "prompt"))),
        ("Explainers", ", ".join(values_of(run.attributions, "explainer"))),
        ("Examples", number(len(distinct(run.predictions, ("data", "example"))))),
        ("Explanations", number(run.attributions.height) if run.attributions.height else ""),
        ("Evaluations", _evaluations(run)),
        ("When", _when(run.run_json)),
        ("Versions", _versions(run.run_json)),
    ]
    return [(name, text) for name, text in facts if text]


def _evaluations(run: ReportInput) -> str:
    """Return what was computed of what was asked, or what the explanations used."""
    new, asked = (
        sum(row["value"] for row in rows_of(run.tables, "cost", metric=metric, explainer="all"))
        for metric in ("total_evaluations_new", "total_evaluations_asked")
    )
    if asked:
        return f"{number(round(new))} computed of {number(round(asked))} asked"
    used = run.attributions["evaluations"].sum()
    return f"{number(int(used))} used" if used else ""


def _when(run_json: Mapping[str, Any]) -> str:
    started, finished = (str(run_json.get(key) or "") for key in ("started", "finished"))
    try:
        begin, end = datetime.fromisoformat(started), datetime.fromisoformat(finished)
    except ValueError:
        return " to ".join(text for text in (started, finished) if text)
    minutes, seconds = divmod(round((end - begin).total_seconds()), 60)
    took = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f"{begin:%Y-%m-%d %H:%M}, took {took}"


def _versions(run_json: Mapping[str, Any]) -> str:
    versions = run_json.get("versions")
    if not isinstance(versions, Mapping):
        return str(versions or "")
    first = [name for name in ("rayxai", "torch", "transformers", "ray") if name in versions]
    return ", ".join(f"{name} {versions[name]}" for name in first or list(versions)[:4])


def _prompt(prompt: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """Return a prompt's name, its text, its label strings."""
    chat = prompt.get("chat") or ()
    turns = [f"{role}: {text}" for message in chat for role, text in _turn(message)]
    labels = [f"{k} = {v!r}" for k, v in (prompt.get("labels") or {}).items()]
    return str(prompt.get("name", "")), str(prompt.get("template") or "\n".join(turns)), labels


def _turn(message: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"])] if "role" in message else list(message.items())


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [pair for k, v in value.items() for pair in _flat(v, f"{path}.{k}" if path else k)]
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return [pair for i, v in enumerate(value) for pair in _flat(v, f"{path}.{i}")]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return [(path, text)]


def _failures(frame: pl.DataFrame) -> dict[str, Any]:
    rows = list(frame.iter_rows(named=True))
    reasons = Counter((row.get("stage"), row.get("code")) for row in rows)
    return {
        "n": len(rows),
        "reasons": [(stage, code, n) for (stage, code), n in reasons.most_common()],
        "rows": rows[:MOST_FAILURES],
    }
