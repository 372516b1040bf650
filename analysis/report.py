"""The report of a run: one HTML file that needs no network, made from the run's tables and rows.

Everything is chosen by column name and left out where it is missing, so that a run without
explainers, rationales or gold labels still makes a report.
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.figures import (
    COST,
    DARK_SERIES,
    PRINT,
    SETTINGS,
    THEMED,
    Row,
    combination,
    draw,
    rows_of,
    svg,
    title_of,
    varying,
)
from analysis.heatmap import (
    DARK,
    LIGHT,
    FeatureSpan,
    Theme,
    decimals,
    largest,
    segments,
    signed,
    spans_of,
)
from engine.schema import FACTORS

MOST_EXAMPLES = 200
"""Examples shown with their text; the others are in the Parquet files."""
MOST_WORDS = 200_000
"""Coloured words on the page: long texts make it stop before `MOST_EXAMPLES`."""
MOST_ROWS = 400
"""Rows of a full table on the page; the CSV has all."""
MOST_NOTES = 2
MOST_FAILURES = 50
NAMED_WORDS = 20
"""Words listed with their number below an explanation, the strongest first."""

_HEADS = {"explainer_a": "explainer", "explainer_b": "and", "rationale_kind": "marked by"}
_OWN_TABLE = {"confusion", "probability_share"}  # metrics that a table of means has no place for
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
_BY_EXPLAINER = "By explainer"
_STANDING = ("The model’s accuracy", "Majority rate of these")
_COUNTS = {
    "confusion",
    *(
        f"{total}{kind}_{how}"
        for total in ("", "total_")
        for kind in ("evaluations", "tokens")
        for how in ("asked", "new")
    ),
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


class Cell(NamedTuple):
    """A value with its interval, ready to print; `text` is "–" where there is none."""

    text: str
    interval: str = ""


class Grid(NamedTuple):
    """A readable table: `keys` head the first columns, `columns` the cells."""

    caption: str
    keys: list[str]
    columns: list[str]
    rows: list[tuple[list[str], list[Cell]]]


class Section(NamedTuple):
    """A topic of the results; `drawings` are (drawing, SVG, has a PNG beside the report)."""

    name: str
    heading: str
    lead: str
    drawings: list[tuple[Any, Markup, bool]]
    grids: list[Grid]
    header: list[str]
    full: list[list[str]]
    n_rows: int


class Explained(NamedTuple):
    """One explanation of one example."""

    explainer: str
    badges: list[str]
    fields: list[tuple[str, Markup]]
    words: list[tuple[str, str, str]]  # sign, signed number, text; the strongest first
    facts: list[str]


class Panel(NamedTuple):
    """An example under one combination of the factors."""

    heading: str
    prediction: str
    probability: str
    gold: str | None
    right: bool | None
    rationale: str
    common: str
    plain: list[tuple[str, Markup]]
    explained: list[Explained]


class Card(NamedTuple):
    """An example with its panels, and what the page's filter asks for."""

    name: str
    gold: str
    predicted: list[str]
    wrong: bool
    panels: list[Panel]


class Score(NamedTuple):
    """An explainer's line in the summary."""

    explainer: str
    gain: Cell | None
    tone: str  # good | bad | open
    verdict: str
    facts: list[str]


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
    cards, n_explained = _cards(run)
    page = environment.get_template("report.html").render(
        run=run,
        css=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        js=Markup((_TEMPLATES / "report.js").read_text(encoding="utf-8")),
        themes={"light": page_colours(LIGHT), "dark": page_colours(DARK)},
        facts=_facts(run),
        summary=_summary(run),
        failures=_failures(run.failures),
        sections=_sections(run, path.parent),
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


def number(value: float | None) -> str:
    """Return a number to read: counts whole, others with three decimals, fewer for large ones."""
    if value is None or value != value:
        return "–"
    size = abs(value)
    if isinstance(value, int) or size >= 1000:
        text = f"{value:,.0f}".replace(",", "\u202f")
    elif size and size < 5e-4:
        text = re.sub(r"e([+-])0*", r"e\1", f"{value:.1e}")
    else:
        text = f"{value:.{3 if size < 10 else 1}f}"
    return text.replace("-", "−")


def _cell(row: Row, prefix: str = "value") -> Cell:
    ends = ("ci_low", "ci_high") if prefix == "value" else (f"{prefix}_ci_low", f"{prefix}_ci_high")
    low, high = (row.get(end) for end in ends)
    interval = "" if low is None or high is None else f"[{number(low)}, {number(high)}]"
    value = row.get(prefix)
    if value is not None and row["metric"] in _COUNTS and value == round(value):
        value = int(value)
    return Cell(number(value), interval)


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
    return list(dict.fromkeys(name for names in predictions["labels"].to_list() for name in names))


def _values(frame: pl.DataFrame, column: str) -> list[str]:
    if column not in frame.columns:
        return []
    return [str(value) for value in frame[column].unique(maintain_order=True) if value is not None]


def _facts(run: ReportInput) -> list[tuple[str, str]]:
    """Return what was run, as (name, text)."""
    models = [
        " · ".join(str(part) for part in parts if part and part != "none")
        for parts in _distinct(run.predictions, ("model", "precision", "adapter"))
    ]
    facts = [
        ("Model", ", ".join(models)),
        ("Data", ", ".join(_values(run.predictions, "data"))),
        ("Prompt", ", ".join(_values(run.predictions, "prompt"))),
        ("Explainers", ", ".join(_values(run.attributions, "explainer"))),
        ("Examples", number(len(_distinct(run.predictions, ("data", "example"))))),
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


def _distinct(frame: pl.DataFrame, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    if not set(columns) <= set(frame.columns):
        return []
    return frame.select(columns).unique(maintain_order=True).rows()


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


def _prompt(prompt: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return a prompt's name, its text, its label strings."""
    chat = prompt.get("chat") or ()
    turns = [f"{role}: {text}" for message in chat for role, text in _turn(message)]
    labels = ", ".join(f"{k} = {v!r}" for k, v in (prompt.get("labels") or {}).items())
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


# ---- summary


def _summary(run: ReportInput) -> list[tuple[str, Markup, list[Score]]]:
    """Return, for each combination of the factors: heading, sentence, a line an explainer."""
    combinations = _distinct(run.predictions, FACTORS)
    rows = [dict(zip(FACTORS, values, strict=True)) for values in combinations]
    shown = varying(rows, FACTORS)
    return [
        (combination(row, shown), _accuracy_sentence(run, row), _scores(run, row)) for row in rows
    ]


def _accuracy_sentence(run: ReportInput, factors: Row) -> Markup:
    mine = [r for r in rows_of(run.tables, "performance", **factors) if not r.get("class")]
    by_metric = {row["metric"]: row for row in mine}
    accuracy, majority = by_metric.get("accuracy"), by_metric.get("majority_rate")
    if accuracy is None:
        return _counted_sentence(run.predictions, factors)
    text = Markup("The model is right on <strong>{}</strong> {} of {} examples").format(
        number(accuracy["value"]), _cell(accuracy).interval, number(accuracy.get("n"))
    )
    if majority is None:
        return text + "."
    text += Markup("; always answering with the commonest label would be right on {}.").format(
        number(majority["value"])
    )
    low = accuracy.get("ci_low")
    if low is not None and low <= majority["value"]:
        text += Markup(
            " <strong>The interval reaches the majority rate:</strong> nothing here shows that the"
            " model can do the task, so no verdict is drawn on its explanations."
        )
    return text


def _counted_sentence(predictions: pl.DataFrame, factors: Row) -> Markup:
    """Count from the rows what a run without its performance table says of the model."""
    own = predictions.filter(pl.all_horizontal(pl.col(k) == v for k, v in factors.items()))
    pairs = [pair for pair in own.select("gold", "predicted").iter_rows() if pair[0] is not None]
    if not pairs:
        return Markup("There are no gold labels to say how often the model is right.")
    right = sum(gold == predicted for gold, predicted in pairs)
    return Markup("The model is right on <strong>{}</strong> of {} examples.").format(
        number(right), number(len(pairs))
    )


def _scores(run: ReportInput, factors: Row) -> list[Score]:
    gains = rows_of(
        run.tables,
        "faithfulness",
        metric="comprehensiveness",
        reference="minus_random",
        **factors,
    )
    gain_of = {row["explainer"]: row for row in gains}
    own = run.attributions.filter(pl.all_horizontal(pl.col(k) == v for k, v in factors.items()))
    names = list(dict.fromkeys([*gain_of, *_values(own, "explainer")]))
    return [_score(run, factors, name, gain_of.get(name), own) for name in names]


def _score(run: ReportInput, factors: Row, name: str, gain: Row | None, own: pl.DataFrame) -> Score:
    mine = own.filter(pl.col("explainer") == name)
    facts = []
    if (r2 := _median(mine, "r2")) is not None:
        facts.append(f"median weighted R² {number(r2)}")
    if (residual := _median(mine, "residual")) is not None:
        facts.append(f"median |additivity residual| {number(residual) if residual else 0}")
    if (evaluations := _median(mine, "evaluations")) is not None:
        facts.append(f"{number(round(evaluations))} evaluations an explanation")
    for row in rows_of(run.tables, "cost", metric=COST, explainer=name, **factors):
        facts.append(f"{number(row['value'])} s an explanation")
    verdict = _words(gain.get("verdict")) if gain else ""
    cell = _cell(gain) if gain else None
    if cell and gain and gain["value"] > 0:
        cell = cell._replace(text="+" + cell.text)
    return Score(name, cell, _tone(verdict), verdict, facts)


def _median(frame: pl.DataFrame, column: str) -> float | None:
    values = [abs(v) for v in frame[column].to_list() if v is not None and v == v]
    return statistics.median(values) if values else None


def _tone(verdict: str) -> str:
    tones = {"better": "good", "worse": "bad"}
    return tones.get(verdict.partition(" ")[0], "open")


def _words(name: object) -> str:
    return str(name or "").replace("_", " ")


# ---- tables


_LEADS = {
    "performance": ("Performance", "Is the model right, and does it know when?"),
    "faithfulness": (
        "Faithfulness",
        "Does the model rely on the words an explainer names? Comprehensiveness: how far the "
        "label's probability drops without them. Sufficiency: how far it drops with them alone. "
        "Minus random: the paired difference to deleting words in random order.",
    ),
    "agreement": ("Agreement", "Do two explainers say the same of the same example?"),
    "plausibility": ("Plausibility", "Do the explainers name the words that people marked?"),
    "complexity": ("Complexity", "On how few words does an explanation rest?"),
    "cost": (
        "Cost",
        "What an explanation costs. Explainers share evaluations, so what is paid (marginal) is "
        "less than what each would have cost alone.",
    ),
}


def _sections(run: ReportInput, folder: Path) -> list[Section]:
    drawings = draw(run.tables, run.predictions, THEMED)
    sections = []
    for name, (heading, lead) in _LEADS.items():
        frame = run.tables.get(name)
        own = [
            (d, Markup(svg(d)), (folder / "figures" / f"{d.name}.png").is_file())
            for d in drawings
            if d.table == name
        ]
        if (frame is None or frame.is_empty()) and not own:
            continue
        frame = pl.DataFrame() if frame is None else frame
        full = [[_plain(v) for v in row] for row in frame.head(MOST_ROWS).iter_rows()]
        grids = _grids(run.tables, name)
        sections.append(Section(name, heading, lead, own, grids, frame.columns, full, frame.height))
    return sections


def _plain(value: object) -> str:
    return number(value) if isinstance(value, int | float) else "" if value is None else str(value)


def _grids(tables: Mapping[str, pl.DataFrame], name: str) -> list[Grid]:
    rows = [row for row in rows_of(tables, name) if row.get("n_removed") is None]
    plain = [row for row in rows if row["metric"] not in _OWN_TABLE]
    if name == "performance":
        confusion = [row for row in rows if row["metric"] == "confusion"]
        grids = [
            _grid("All classes", [r for r in plain if not r.get("class")], ()),
            _grid("By class", [r for r in plain if r.get("class")], ("class",)),
            _grid(
                "Confusion: rows are gold, columns predicted",
                confusion,
                ("class",),
                lambda r: str(r["predicted_class"]),
            ),
        ]
    elif name == "cost":
        totals = [row for row in plain if row["metric"].startswith("total_")]
        means = [row for row in plain if row not in totals]
        grids = [
            _grid("Mean of an example", means, ("explainer",)),
            _grid("Totals of the run", totals, ("explainer",)),
        ]
    elif name == "faithfulness":
        own = [row for row in plain if row.get("reference") != "minus_random"]
        paired = [row for row in plain if row.get("reference") == "minus_random"]
        # a gain over random is a difference already
        paired = [row for row in paired if row["metric"] != "deletion_gain"]
        grids = [
            _grid("Minus random, on the same examples", paired, ["explainer"]),
            _grid(_accuracy_note(plain), own, ["explainer"]),
        ]
    else:
        keys = ["explainer_a", "explainer_b"] if name == "agreement" else ["explainer"]
        keys += ["rationale_kind"] if name == "plausibility" else []
        grids = [_grid(_accuracy_note(plain), plain, keys)]
    return [grid for grid in grids if grid.rows]


def _column(row: Row) -> str:
    """Return a column's heading: the metric, and which way is better."""
    arrow = {"higher": "\u00a0↑", "lower": "\u00a0↓"}.get(row.get("direction") or "", "")
    return title_of(row["metric"]) + arrow


def _grid(
    caption: str,
    rows: Sequence[Row],
    keys: Sequence[str],
    column: Callable[[Row], str] = _column,
) -> Grid:
    """Return rows × metrics; the settings that vary head the rows beside `keys`."""
    settings = varying(rows, [c for c in SETTINGS if rows and c in rows[0]])
    keys = [
        *[c for c in settings if c in FACTORS],
        *keys,
        *[c for c in settings if c not in FACTORS],
    ]
    columns = list(dict.fromkeys(column(row) for row in rows))
    by_key: dict[tuple[str, ...], dict[str, Cell]] = {}
    for row in rows:
        cells = by_key.setdefault(
            tuple(
                _words(row.get(key)) if key == "rationale_kind" else str(row.get(key) or "none")
                for key in keys
            ),
            {},
        )
        cells[column(row)] = _cell(row)
        if row.get("reference") == "minus_random" and row["metric"] == "comprehensiveness":
            cells["Verdict"] = Cell(_words(row.get("verdict")) or "–")
        if caption == _BY_EXPLAINER and row.get("accuracy") is not None:
            cells[_STANDING[0]] = _cell(row, "accuracy")
            cells[_STANDING[1]] = Cell(number(row.get("majority_rate")))
    if any(_STANDING[0] in cells for cells in by_key.values()):
        columns += _STANDING
    if any("Verdict" in cells for cells in by_key.values()):
        columns.insert(0, "Verdict")
    lines = [
        (list(key), [cells.get(name, Cell("–")) for name in columns])
        for key, cells in by_key.items()
    ]
    if len(lines) == 1 and not keys:  # one row reads better downwards
        lines = [([name], [cell]) for name, cell in zip(columns, lines[0][1], strict=True)]
        return Grid(caption, ["metric"], ["value"], lines)
    return Grid(caption, [_HEADS.get(key, _words(key)) for key in keys], columns, lines)


def _accuracy_note(rows: Sequence[Row]) -> str:
    """Return the model's accuracy on the explained examples as a caption.

    More than `MOST_NOTES` combinations of factors stand in columns of their own instead.
    """
    shown = varying(rows, FACTORS)
    notes: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: row["n"]):  # the row of the most examples holds
        if row.get("accuracy") is not None and row.get("majority_rate") is not None:
            cell = _cell(row, "accuracy")
            label = combination(row, shown)
            below = (row.get("verdict") or "").startswith("no verdict: accuracy")
            notes[label] = (
                f"{label + ': the' if label else 'The'} model’s accuracy on these examples is "
                f"{cell.text} {cell.interval}, the majority rate {number(row['majority_rate'])}"
                f"{', so no verdict is drawn' if below else ''}"
            )
    return "; ".join(notes.values()) if 0 < len(notes) <= MOST_NOTES else _BY_EXPLAINER


# ---- explained examples


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts review-9 before review-10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def _cards(run: ReportInput) -> tuple[list[Card], int]:
    """Return the examples to show, by id, and how many there are."""
    explanations: dict[tuple[Any, ...], list[Row]] = {}
    for row in run.attributions.iter_rows(named=True):
        explanations.setdefault(_example_key(row), []).append(row)
    examples: dict[tuple[str, str], list[Row]] = {}
    for row in run.predictions.iter_rows(named=True):
        if not explanations or _example_key(row) in explanations:
            examples.setdefault((row["data"], row["example"]), []).append(row)
    shown = varying([row for rows in examples.values() for row in rows], FACTORS[1:])
    order = sorted(examples, key=lambda key: (key[0], _natural(key[1])))
    cards: list[Card] = []
    words = 0
    for key in order[:MOST_EXAMPLES]:
        own = [explanations.get(_example_key(row), []) for row in examples[key]]
        words += sum(row["n_features"] for rows in own for row in rows)
        if cards and words > MOST_WORDS:
            break
        panels = [
            _panel(row, rows, combination(row, shown))
            for row, rows in zip(examples[key], own, strict=True)
        ]
        cards.append(
            Card(
                key[1],
                next((panel.gold for panel in panels if panel.gold), ""),
                [panel.prediction for panel in panels],
                any(panel.right is False for panel in panels),
                panels,
            )
        )
    return cards, len(order)


def _example_key(row: Row) -> tuple[Any, ...]:
    return (*[row[factor] for factor in FACTORS], row["example"])


def _panel(prediction: Row, rows: Sequence[Row], heading: str) -> Panel:
    labels, predicted, gold = prediction["labels"], prediction["predicted"], prediction["gold"]
    inputs = json.loads(prediction["inputs"])
    rationale = spans_of(prediction["rationale"])
    settings = Counter(_settings(row) for row in rows)
    common = settings.most_common(1)[0][0] if settings else ()
    kind = _words(prediction["rationale_kind"]) if rationale else ""
    return Panel(
        heading,
        labels[predicted],
        f"{prediction['probabilities'][predicted]:.3f}",
        None if gold is None else labels[gold],
        None if gold is None else gold == predicted,
        kind,
        " · ".join(common),
        [] if rows else _colour(inputs, (), (), None, rationale),
        [_explained(row, inputs, rationale, common) for row in rows],
    )


def _settings(row: Row) -> tuple[str, ...]:
    return (
        f"explains {row['class_name']}",
        _words(row["target"]).replace("log odds", "log-odds"),
        _words(row["features"]),
        f"removed by {row['operator']}",
    )


def _explained(
    row: Row, inputs: Mapping[str, str], rationale: Sequence[FeatureSpan], common: Sequence[str]
) -> Explained:
    badges = [text for text in _settings(row) if text not in common]
    if profile := re.search(r"\[compat:(.+)\]", row["method"]):
        badges.insert(0, f"compat: {profile.group(1)}")
    elif row["method"] != row["explainer"]:
        badges.insert(0, row["method"])
    facts = [f"{number(row['evaluations'])} evaluations"]
    if row["r2"] is not None:
        facts.append(f"R² {number(row['r2'])}")
    if row["residual"] is not None:
        facts.append(f"residual {number(row['residual'])}")
    if row["status"] != "ok":
        facts.insert(0, _words(row["status"]))
    spans, values = spans_of(row["spans"]), row["values"]
    if spans and not any(values):
        facts.insert(0, "every value is 0")
    fields = _colour(inputs, spans, values, row["std_error"], rationale)
    return Explained(row["explainer"], badges, fields, _strongest(inputs, spans, values), facts)


def _strongest(
    inputs: Mapping[str, str], spans: Sequence[FeatureSpan], values: Sequence[float]
) -> list[tuple[str, str, str]]:
    scale = largest(values)
    first = {span.feature: span for span in reversed(spans) if values[span.feature]}
    order = sorted(first, key=lambda feature: (-abs(values[feature]), feature))
    words = [(values[f], inputs[first[f].field][first[f].start : first[f].end]) for f in order]
    return [(_sign(v), signed(v, scale), _short(word)) for v, word in words[:NAMED_WORDS]]


def _short(text: str) -> str:
    return text if len(text) <= 32 else text[:31].rstrip() + "…"


def _sign(value: float) -> str:
    return "p" if value > 0 else "n" if value < 0 else "z"


def _colour(
    inputs: Mapping[str, str],
    spans: Sequence[FeatureSpan],
    values: Sequence[float],
    errors: Sequence[float] | None,
    rationale: Sequence[FeatureSpan],
) -> list[tuple[str, Markup]]:
    """Return each input field as HTML with its words coloured and its evidence marked."""
    scale = largest(values)
    fields = []
    for name, text in inputs.items():
        here = [span for span in spans if span.field == name]
        marks = [span for span in rationale if span.field == name]
        parts: list[Markup] = []
        for marked, run in groupby(segments(text, here, marks), lambda segment: segment.marked):
            inner = Markup("").join(_word(s.text, s.feature, values, errors, scale) for s in run)
            parts.append(Markup('<span class="m">{}</span>').format(inner) if marked else inner)
        fields.append((name if len(inputs) > 1 else "", Markup("").join(parts)))
    return fields


def _word(
    text: str,
    feature: int | None,
    values: Sequence[float],
    errors: Sequence[float] | None,
    scale: float,
) -> Markup:
    if feature is None:
        return escape(text)
    value = values[feature]
    title = signed(value, scale)
    if errors is not None and errors[feature] is not None:
        title += f" ± {errors[feature]:.{decimals(scale)}f}"
    share = abs(value) / scale if scale and value == value else 0.0
    return Markup('<span class="w {}" style="--a:{}" title="{}">{}</span>').format(
        _sign(value), f"{share:.2f}", title, text
    )
