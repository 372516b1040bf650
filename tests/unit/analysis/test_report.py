"""A report is well formed, self-contained, safe, complete, and readable in both themes."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from analysis.figures import write_figures
from analysis.heatmap import DARK, LIGHT, Theme, blend, contrast
from analysis.report import ReportInput, page_colours, write_report
from analysis.report_examples import MOST_EXAMPLES
from analysis.report_parts import number
from engine.schema import ATTRIBUTIONS, FACTORS, FAILURES, PREDICTIONS, rows_to_table

Row = dict[str, Any]
REVIEWS = Path(__file__).parents[3] / "engine/data/reviews.jsonl"
LABELS = ["negative", "positive"]
EXPLAINERS = {
    "lime": ("lime", "words"),
    "kernel_shap": ("kernel_shap", "words"),
    "lime.compat_lime": ("lime[compat:lime]", "words"),
    "occlusion": ("occlusion", "sentences"),
}
HAND_WRITTEN = [
    {
        "id": "x-script",
        "text": "Bad <script>alert('x')</script> & \"worse\".\nSecond line.",
        "label": 0,
    },
    {"id": "x-rtl", "text": "الفيلم رائع جدا 🎬 ولا أندم", "label": 1},
    {"id": "x-empty", "text": "", "label": 0},
]
VOID = {"meta", "br", "hr", "img", "input", "link"}


def frame(rows: list[Row], schema: pa.Schema) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(rows_to_table(rows, schema)))


def factors(model: str = "SmolLM2-135M-Instruct", prompt: str = "review") -> Row:
    return dict(zip(FACTORS, ("reviews", model, "fp32", "", prompt), strict=True))


def spans_of(text: str, features: str) -> list[Row]:
    pattern = r"\S+" if features == "words" else r"[^.!?\n]+[.!?]?"
    found = [m.span() for m in re.finditer(pattern, text) if m.group().strip()]
    return [{"feature": i, "start": a, "end": b, "field": "text"} for i, (a, b) in enumerate(found)]


def prediction(review: Row, chance: random.Random, **kinds: str) -> Row:
    p = round(chance.betavariate(2, 2), 6)
    p = 1 - p / 2 if (review["label"] == 1) == (chance.random() < 0.8) else p / 2
    marked = review.get("author_marked", {}).get("text")
    return {
        "unit": "u",
        **factors(**kinds),
        "example": review["id"],
        "inputs": json.dumps({"text": review["text"]}),
        "labels": LABELS,
        "gold": review["label"],
        "predicted": int(p > 0.5),
        "log_probs": [-1.0, -2.0],
        "probabilities": [1 - p, p],
        "log_z": 0.0,
        "label_mass": 0.4,
        "rationale": None
        if marked is None
        else [
            {"feature": i, "start": a, "end": b, "field": "text"} for i, (a, b) in enumerate(marked)
        ],
        "rationale_kind": None if marked is None else "author_marked",
        "tokens": 40,
        "numerics": "n",
    }


def attribution(row: Row, explainer: str, chance: random.Random) -> Row:
    method, features = EXPLAINERS[explainer]
    text = json.loads(row["inputs"])["text"]
    spans = spans_of(text, features)
    values = [chance.gauss(0, 0.25) for _ in spans]
    for span in row["rationale"] or ():
        for i, s in enumerate(spans):
            if s["start"] < span["end"] and span["start"] < s["end"]:
                values[i] += 0.9
    surrogate = "lime" in method
    keys = ("unit", "example", *FACTORS)
    return {
        **{key: row[key] for key in keys},
        "explainer": explainer,
        "features": features,
        "operator": "delete",
        "target": "log_odds",
        "class_rule": "predicted",
        "class_name": LABELS[row["predicted"]],
        "method": method,
        "masked_on": "text",
        "n_features": len(spans),
        "spans": spans,
        "values": values,
        "values_by_label": [[-v for v in values], values],
        "base": 0.1,
        "full_value": 1.2,
        "std_error": [0.05] * len(spans) if surrogate else None,
        "evaluations": 128 if features == "words" else len(spans) + 1,
        "residual": None if surrogate else 2.2e-16,
        "r2": 0.8 + chance.random() / 10 if surrogate else None,
        "diagnostics": "{}",
        "status": "ok" if spans else "no_features",
        "numerics": "n",
    }


def tables_of(models: tuple[str, ...]) -> dict[str, pl.DataFrame]:
    chance = random.Random(3)
    names = ("performance", "faithfulness", "complexity", "agreement", "plausibility", "cost")
    rows: dict[str, list[Row]] = {name: [] for name in names}

    def add(
        table: str,
        keys: Row,
        metric: str,
        value: float,
        direction: str = "higher",
        half: float | None = 0.06,
    ) -> None:
        interval = {} if half is None else {"ci_low": value - half, "ci_high": value + half}
        row = {**keys, "metric": metric, "value": value, "n": 27, **interval}
        rows[table].append({**row, "direction": direction, "definition_version": 1})

    for model in models:
        base = factors(model)
        for metric, value, direction in (
            ("accuracy", 0.79, "higher"),
            ("f1", 0.78, "higher"),
            ("mcc", 0.58, "higher"),
            ("auroc", 0.871, "higher"),
            ("nll", 0.51, "lower"),
            ("brier", 0.17, "lower"),
            ("ece", 0.061, "lower"),
            ("majority_rate", 0.5, "none"),
        ):
            none = {"class": None, "predicted_class": None}
            add("performance", base | none, metric, value, direction)
        for label in LABELS:
            of = base | {"class": label, "predicted_class": None}
            add("performance", of, "precision", 0.7 + chance.random() / 5)
            add("performance", of, "recall", 0.7 + chance.random() / 5)
            for other in LABELS:
                both = base | {"class": label, "predicted_class": other}
                add("performance", both, "confusion", 10.0 if other == label else 3.0, "none", None)
        extras = {
            "accuracy": 0.79,
            "accuracy_ci_low": 0.71,
            "accuracy_ci_high": 0.86,
            "majority_rate": 0.5,
        }
        settings = {"operator": "delete", "target": "log_odds", "class_rule": "predicted"}
        for i, (name, (_, features)) in enumerate(EXPLAINERS.items()):
            game = {"explainer": name, "features": features, **settings}
            for metric, direction in (
                ("comprehensiveness", "higher"),
                ("sufficiency", "lower"),
                ("deletion_auc", "lower"),
            ):
                for reference in ("none", "minus_random"):
                    better = reference == "minus_random" and i < 3
                    verdict = "better than random" if better else "not distinguishable from random"
                    keys = base | game | extras | {"n_removed": None, "reference": reference}
                    keys["verdict"] = verdict if reference == "minus_random" else None
                    value = (0.24 - 0.07 * i) * (1 if direction == "higher" else -1)
                    add("faithfulness", keys, metric, value, direction)
            for k in range(1, 9):
                keys = base | game | extras | {"n_removed": k, "reference": "none", "verdict": None}
                value = 0.05 * (5 - i) * k**0.6
                add("faithfulness", keys, "comprehensiveness_at_k", value)
            for metric in ("gini", "entropy", "effective_size", "top_k_mass"):
                add("complexity", base | game | extras, metric, 0.3 + chance.random() / 2)
            for metric in ("iou", "token_f1", "auprc"):
                keys = base | game | {"rationale_kind": "author_marked"} | extras
                add("plausibility", keys, metric, 0.3 + chance.random() / 2)
            others = list(EXPLAINERS)[i + 1 :]
            for other in [o for o in others if EXPLAINERS[o][1] == features]:
                pair = {"explainer_a": name, "explainer_b": other, "features": features}
                for metric in ("spearman", "cosine", "top_k_overlap"):
                    keys = base | pair | settings | extras
                    add("agreement", keys, metric, chance.uniform(-0.1, 0.9), "none")
            cost = base | {"explainer": name}
            add("cost", cost, "standalone_seconds", [2.1, 1.9, 4.2, 0.3][i], "lower")
            add("cost", cost, "marginal_seconds", [0.6, 0.5, 4.1, 0.1][i], "lower")
            add("cost", cost, "evaluations_asked", [128.0, 128.0, 128.0, 4.0][i], "lower")
            add("cost", cost, "total_evaluations_asked", 3072.0, "lower", None)
    return {name: pl.DataFrame(part, infer_schema_length=None) for name, part in rows.items()}


def make_run(
    n: int = 24,
    models: tuple[str, ...] = ("SmolLM2-135M-Instruct",),
    failures: int = 1,
    explained: bool = True,
) -> ReportInput:
    chance = random.Random(7)
    reviews = [json.loads(line) for line in REVIEWS.open(encoding="utf-8")][:n] + HAND_WRITTEN
    rows = [prediction(r, chance, model=m) for m in models for r in reviews]
    made = [attribution(row, name, chance) for row in rows for name in EXPLAINERS]
    failed = {
        "unit": "u",
        **factors(),
        "example": "review-031",
        "explainer": None,
        "stage": "data",
        "code": "too_long",
        "message": "9120 tokens, but the model takes 8192: shorten the <text> or filter it",
    }
    run_json = {
        "config": {
            "run": {"name": "demo"},
            "models": [{"path": "HuggingFaceTB/SmolLM2-135M-Instruct"}],
            "prompts": [
                {
                    "name": "review",
                    "template": "Review: {text}\nSentiment:",
                    "labels": {"negative": " negative", "positive": " positive"},
                }
            ],
        },
        "fingerprints": {"run": "0f3a9c1e5b7d2468", "evaluations": ["77aa01b2c3d4e5f6"]},
        "versions": {"rayxai": "0.1.0", "torch": "2.13.0", "transformers": "5.19.0", "ray": "2.60"},
        "hardware": {"cpu": "2 cores", "gpus": []},
        "started": "2025-01-02T10:00:00+00:00",
        "finished": "2025-01-02T10:07:31+00:00",
    }
    return ReportInput(
        "Demo: film and shop reviews",
        run_json,
        tables_of(models) if explained else {},
        frame(rows, PREDICTIONS),
        frame(made if explained else [], ATTRIBUTIONS),
        frame([failed] * failures, FAILURES),
    )


class Page(HTMLParser):
    """Checks that elements nest, and keeps what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.elements if name in (a.get("class") or "").split()]


def render(run: ReportInput, folder: Path) -> str:
    return write_report(run, folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    run = make_run()
    write_figures(run.tables, run.predictions, folder / "figures")
    return render(run, folder)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def cards_of(html: str) -> dict[str, str]:
    found = re.findall(r'<article class="card".*?</article>', html, re.DOTALL)
    return {re.search(r'data-id="([^"]*)"', card).group(1): card for card in found}


def test_ids_are_unique_and_references_resolve(page: Page) -> None:
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "href"):
            target = attributes.get(name) or ""
            target = target if name == "aria-labelledby" else target.partition("#")[2]
            assert not target or target in ids


def test_needs_no_network(html: str, page: Page) -> None:
    assert not re.search(r"https?:|@import|<link|<img|<iframe", html)
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "poster"):
            if name in attributes:
                assert re.match(r"#|tables/\w+\.csv$|figures/\w+\.png$", attributes[name] or "")
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_structure(page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert [tags.count(tag) for tag in ("h1", "nav", "main", "header")] == [1, 1, 1, 1]
    assert tags.count("caption") == tags.count("table") > 6
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert tags.count("svg") == 5
    links = {a.get("href") for tag, a in page.elements if tag == "a"}
    assert {"#summary", "#examples", "#failures", "tables/cost.csv", "figures/cost.png"} <= links


def test_figures_without_a_file_are_not_linked(tmp_path: Path) -> None:
    assert 'href="figures/' not in render(make_run(n=2), tmp_path)


def test_texts_are_escaped(html: str, page: Page, tmp_path: Path) -> None:
    assert "<script>alert" not in html
    assert [tag for tag, _ in page.elements].count("script") == 1
    run = make_run(n=1)
    nasty = '"><script>alert(1)</script><b x="'
    frames = {
        "title": nasty,
        "predictions": run.predictions.with_columns(
            pl.lit(nasty).alias("example"), pl.lit([nasty, "ok"]).alias("labels")
        ),
        "attributions": run.attributions.with_columns(
            *[pl.lit(nasty).alias(c) for c in ("example", "explainer", "method", "class_name")]
        ),
        "failures": run.failures.with_columns(pl.lit(nasty).alias("message")),
        "run_json": {"versions": {"a": nasty}, "config": {"prompts": [{"template": nasty}]}},
    }
    text = render(replace(run, **frames), tmp_path)
    assert "<script>alert" not in text
    assert len([1 for tag, _ in Page(text).elements if tag == "script"]) == 1


def test_white_space_direction_and_emoji_survive(html: str) -> None:
    cards = cards_of(html)
    heats = re.findall(r'<p class="heat" dir="auto">(.*?)</p>', cards["x-script"], re.DOTALL)
    plain = [Page(heat).text for heat in heats]
    assert ["".join(parts) for parts in plain] == [HAND_WRITTEN[0]["text"]] * 4
    assert "🎬" in cards["x-rtl"]
    assert "empty text" in cards["x-empty"]
    assert "no features" in cards["x-empty"]
    assert ".heat { white-space: pre-wrap" in html


def test_every_example_and_explainer_is_shown(html: str) -> None:
    run = make_run()
    cards = cards_of(html)
    assert set(cards) == set(run.predictions["example"])
    for card in cards.values():
        names = re.findall(r"<h4>(\S+)", card)
        assert sorted(n.removesuffix("</h4>") for n in names) == sorted(EXPLAINERS)
    assert all('<span class="badge">compat: lime</span>' in card for card in cards.values())
    assert all('<span class="badge">sentences</span>' in card for card in cards.values())


def test_colours_follow_the_values(html: str) -> None:
    run = make_run()
    card = cards_of(html)["review-002"]
    wanted = run.attributions.filter(pl.col("example") == "review-002", explainer="lime")
    row = wanted.row(0, named=True)
    view = re.search(r"<h4>lime</h4>(.*?)</section>", card, re.DOTALL).group(1)
    words = re.findall(r'<span class="w (.)" style="--a:([\d.]+)" title="([^"]*)">([^<]*)<', view)
    top = max(abs(v) for v in row["values"])
    assert max(float(share) for _, share, _, _ in words) == 1.0
    by_word: dict[str, float] = {}
    text = json.loads(run.predictions.filter(example="review-002")["inputs"][0])["text"]
    for span, value in zip(row["spans"], row["values"], strict=True):
        by_word.setdefault(text[span["start"] : span["end"]], value)
    for sign, share, title, word in words:
        assert sign == ("p" if title.startswith("+") else "n")
        assert title.endswith("± 0.05") or title.endswith("± 0.050")
        if word in by_word:  # not cut by the rationale
            assert (by_word[word] > 0) == (sign == "p")
            assert float(share) == pytest.approx(abs(by_word[word]) / top, abs=0.006)


def test_rationale_is_marked(html: str) -> None:
    card = cards_of(html)["review-002"]
    view = re.search(r'<p class="heat" dir="auto">(.*?)</p>', card, re.DOTALL).group(1)
    marked = re.search(r'<span class="m">((?:<span class="w.*?</span>|[^<])*)</span>', view)
    assert "".join(Page(marked.group(1)).text) == "no means stingy"
    assert "evidence: author marked" in card


def test_right_and_wrong_are_said(html: str) -> None:
    run = make_run()
    for row in run.predictions.iter_rows(named=True):
        card = cards_of(html)[row["example"]]
        wrong = row["gold"] != row["predicted"]
        assert ("✗ wrong" in card) == wrong == (" data-wrong>" in card)
        assert f"{row['probabilities'][row['predicted']]:.3f}" in card


def test_both_themes_are_there(html: str) -> None:
    assert "@media screen and (prefers-color-scheme: dark)" in html
    assert ':root[data-theme="dark"]' in html
    for theme in (LIGHT, DARK):
        for name, colour in page_colours(theme).items():
            assert html.count(f"--{name}: {colour};") >= (1 if theme is LIGHT else 2)
    used = set(re.findall(r"var\((--[\w-]+)", html))
    assert used - {"--a"} <= {f"--{name}" for name in page_colours(LIGHT)}


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_readable_on_every_heat_colour(theme: Theme) -> None:
    for tint in (theme.positive, theme.negative):
        for percent in range(101):
            ground = blend(theme.surface, tint, percent / 100)
            assert contrast(theme.text, ground) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_of_the_page_is_readable(theme: Theme) -> None:
    colours = page_colours(theme)
    for name in ("text", "muted", "accent", "positive-line", "negative-line"):
        for ground in ("background", "surface"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for tone in ("good", "bad"):
        assert contrast(colours[tone], colours[f"{tone}-soft"]) >= 4.5
    assert contrast(colours["text"], colours["soft"]) >= 4.5
    for i in range(6):
        assert contrast(colours[f"series-{i}"], colours["surface"]) >= 2.2


def test_complete_without_javascript(page: Page) -> None:
    assert all("hidden" in attributes for attributes in page.with_class("js"))
    hidden = [a for _, a in page.elements if "hidden" in a]
    assert len(hidden) == len(page.with_class("js"))
    assert len(page.with_class("card")) == 27


def test_failures_are_prominent(html: str, tmp_path: Path) -> None:
    assert "<strong>1 failure.</strong>" in html
    assert html.index("1 failure.") < html.index('id="performance"')
    assert "shorten the &lt;text&gt; or filter it" in html
    quiet = render(make_run(n=2, failures=0), tmp_path)
    assert "failure" not in quiet.lower()


def test_summary_has_the_key_figures(html: str) -> None:
    summary = html[html.index('id="summary"') : html.index('id="performance"')]
    assert "<strong>0.790</strong> [0.730, 0.850] of 27 examples" in summary
    assert "commonest label would be right on 0.500" in summary
    assert "<b>+0.240</b> [0.180, 0.300]" in summary
    assert "better than random" in summary
    assert "median |additivity residual| 2.2e−16" in summary
    r2 = make_run().attributions.filter(explainer="lime")["r2"].median()
    assert f"median weighted R² {r2:.3f}" in summary
    assert "2.100 s an explanation" in summary


def test_no_verdict_where_the_interval_reaches_the_majority_rate(tmp_path: Path) -> None:
    run = make_run(n=2)
    low = pl.when(metric="accuracy").then(0.45).otherwise("ci_low").alias("ci_low")
    tables = {**run.tables, "performance": run.tables["performance"].with_columns(low)}
    text = render(replace(run, tables=tables), tmp_path)
    assert "The interval reaches the majority rate:" in text
    assert "The interval reaches" not in render(run, tmp_path)


def test_without_explainers(tmp_path: Path) -> None:
    text = render(make_run(n=3, explained=False), tmp_path)
    Page(text)
    assert len(cards_of(text)) == 6
    assert re.search(r"The model is right on <strong>\d</strong> of 6 examples", text)
    assert "speaks for the explained label" not in text


def test_nothing_at_all(tmp_path: Path) -> None:
    empty = [frame([], schema) for schema in (PREDICTIONS, ATTRIBUTIONS, FAILURES)]
    tables = {name: pl.DataFrame() for name in ("performance", "cost", "agreement")}
    text = render(ReportInput("Empty", {}, tables, *empty), tmp_path)
    Page(text)
    assert "No example was evaluated." in text


def test_combinations_of_factors_are_headed(tmp_path: Path) -> None:
    text = render(make_run(n=2, models=("one-model", "two-model")), tmp_path)
    Page(text)
    for card in cards_of(text).values():
        assert re.findall(r"<h4>(\w+-model)</h4>", card) == ["one-model", "two-model"]
    assert len(re.findall(r"<h3>\w+-model</h3>", text)) == 2


def test_large_runs_show_the_first_examples_by_id(tmp_path: Path) -> None:
    run = make_run(n=1, explained=False)
    row = run.predictions.row(0, named=True)
    rows = [{**row, "example": f"r-{i}"} for i in reversed(range(MOST_EXAMPLES + 30))]
    text = render(replace(run, predictions=frame(rows, PREDICTIONS)), tmp_path)
    assert f"{MOST_EXAMPLES} of {MOST_EXAMPLES + 30} examples" in text
    assert list(cards_of(text)) == [f"r-{i}" for i in range(MOST_EXAMPLES)]


def test_several_input_fields_are_named(tmp_path: Path) -> None:
    run = make_run(n=0)
    inputs = json.dumps({"premise": "It rains.", "hypothesis": "It is dry."})
    spans = [{"feature": 0, "start": 6, "end": 9, "field": "hypothesis"}]
    example = pl.col("example") == "x-rtl"
    predictions = run.predictions.filter(example).with_columns(inputs=pl.lit(inputs))
    row = run.attributions.filter(example, explainer="lime").row(0, named=True)
    row |= {"spans": spans, "values": [-0.5], "std_error": None, "values_by_label": [[-0.5]]}
    attributions = frame([row], ATTRIBUTIONS)
    text = render(replace(run, predictions=predictions, attributions=attributions), tmp_path)
    card = cards_of(text)["x-rtl"]
    assert re.findall(r'<p class="field">(\w+)</p>', card) == ["premise", "hypothesis"]
    assert 'It is <span class="w n" style="--a:1.00" title="−0.500">dry</span>' in card


def test_same_input_same_bytes(tmp_path: Path) -> None:
    run = make_run(n=2)
    assert render(run, tmp_path / "a") == render(run, tmp_path / "b")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0.000"),
        (-0.25, "−0.250"),
        (2.2e-16, "2.2e−16"),
        (7, "7"),
        (12345.6, "12\u202f346"),
        (128.25, "128.2"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_continuations_stand_in_place_of_labels(tmp_path: Path) -> None:
    run = make_run(n=3)
    texts = [f" goes <on> {i}" for i in range(run.predictions.height)]
    rows = [
        {
            **row,
            "labels": [text],
            "gold": None,
            "predicted": 0,
            "probabilities": [0.25],
            "continuation": [{"token": 1, "text": text, "log_prob": -1.5}] * 2,
        }
        for row, text in zip(run.predictions.to_dicts(), texts, strict=True)
    ]
    explained = [
        {**row, "class_rule": rule, "class_name": " goes"}
        for row, rule in zip(run.attributions.to_dicts(), cycle(["whole", "token:1"]), strict=False)
    ]
    text = render(
        replace(
            run,
            tables={},
            predictions=frame(rows, PREDICTIONS),
            attributions=frame(explained, ATTRIBUTIONS),
        ),
        tmp_path,
    )
    assert text.count("continues with <b> goes &lt;on&gt;") == len(rows)
    assert "log p −3.00, −1.50 a token" in text
    assert "predicts <b>" not in text
    assert "explains the whole continuation" in text
    assert "explains token 1, " in text
    assert "no label says whether it is right" in text
    assert 'value="predicted:' not in text  # nothing to choose examples by
