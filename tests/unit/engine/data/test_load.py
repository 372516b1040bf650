"""Loading: every row of every format is an example or a failure with its place."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.data import DataSource, LoadedData, example_key, load_examples
from engine.errors import DataError
from engine.types import Span

NAMES = ("negative", "positive")
ROWS = [
    {"key": "a", "sentence": "A fine\nfilm, “really”", "target": 1, "doc": "d1"},
    {"key": "b", "sentence": "", "target": 0, "doc": "d1"},
    {"key": "c", "sentence": "رائعا 🙂\r\n", "target": None, "doc": "d2"},
]
Row = dict[str, Any]


def source(path: object, **options: Any) -> DataSource:
    settings = {"inputs": {"text": "sentence"}, "label": "target", "label_names": NAMES, **options}
    return DataSource(str(path), **settings)


def write_jsonl(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, rows: Sequence[Row]) -> None:
    path.write_text(json.dumps(list(rows), indent=1), encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


FORMATS: list[tuple[str, Callable[[Path, Sequence[Row]], None]]] = [
    ("data.jsonl", write_jsonl),
    ("data.json", write_jsonl),
    ("data.json", write_json),
    ("data.csv", write_csv),
    ("data.parquet", write_parquet),
]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("name", "write"), FORMATS)
def test_all_formats_give_the_same_examples(
    name: str, write: Callable[[Path, Sequence[Row]], None], zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path, ROWS)
    if zipped:
        packed = tmp_path / (name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    loaded = load_examples(source(path, id="key", group="doc"))
    assert loaded.failures == ()
    assert loaded.n_total == 3
    assert [(e.id, dict(e.fields), e.label, e.group) for e in loaded.examples] == [
        ("a", {"text": "A fine\nfilm, “really”"}, 1, "d1"),
        ("b", {"text": ""}, 0, "d1"),
        ("c", {"text": "رائعا 🙂\r\n"}, None, "d2"),
    ]
    assert loaded.examples[0].rationale is None
    assert [e.id for e in load_examples(source(path)).examples] == ["data-1", "data-2", "data-3"]


def load_lines(tmp_path: Path, *lines: str | bytes, **options: Any) -> LoadedData:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(x.encode() if isinstance(x, str) else x for x in lines))
    return load_examples(source(path, **options))


def test_each_bad_row_is_a_failure_with_its_line(tmp_path: Path) -> None:
    good = '{"sentence": "good", "target": 1, "key": "k1"}'
    lines = [
        good,
        '{"sentence": "cut',
        "",
        "[1, 2]",
        '{"target": 1, "key": "k5"}',
        '{"sentence": null, "target": 1, "key": "k6"}',
        '{"sentence": 3, "target": 1, "key": "k7"}',
        '{"sentence": "x", "target": 2, "key": "k8"}',
        '{"sentence": "x", "target": "neutral", "key": "k9"}',
        good,
        b'{"sentence": "\xff", "target": 1, "key": "k11"}',
        '{"sentence": "\\ud83d", "target": 1, "key": "k12"}',
        '{"sentence": "x", "target": 1}',
        '{"sentence": "x", "key": "k14"}',
    ]
    loaded = load_lines(tmp_path, *lines, id="key")
    assert [e.id for e in loaded.examples] == ["k1"]
    assert loaded.n_total == 13
    found = [(int(f.place.rsplit(":", 1)[1]), f.code, f.id) for f in loaded.failures]
    assert found == [
        (2, "malformed", None),
        (4, "malformed", None),
        (5, "missing_field", "k5"),
        (6, "missing_field", "k6"),
        (7, "not_text", "k7"),
        (8, "bad_label", "k8"),
        (9, "bad_label", "k9"),
        (10, "duplicate_id", "k1"),
        (11, "malformed", None),
        (12, "not_text", "k12"),
        (13, "bad_id", None),
        (14, "missing_field", "k14"),
    ]
    for failure in loaded.failures:
        assert failure.message.startswith(f"{tmp_path / 'rows.jsonl'}:")
    assert "['negative', 'positive']" in loaded.failures[5].message


def test_csv_rows_count_their_first_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'sentence,target\n"two\nlines",1\nshort\n\nok, 0 \n\xff,1\na,b,c\n')
    loaded = load_examples(source(path))
    assert [(e.fields["text"], e.label) for e in loaded.examples] == [("two\nlines", 1), ("ok", 0)]
    assert [(f.place.rsplit(":", 1)[1], f.code) for f in loaded.failures] == [
        ("4", "malformed"),
        ("7", "not_text"),
        ("8", "malformed"),
    ]
    assert "1 cells under 2 column names" in loaded.failures[0].message
    assert csv.field_size_limit() == 131072


def test_long_cells_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    text = "good " * 40_000
    write_csv(path, [{"sentence": text, "target": 1}])
    assert load_examples(source(path)).examples[0].fields["text"] == text


@pytest.mark.parametrize(
    ("value", "names", "expected"),
    [
        (1, NAMES, 1),
        ("1", NAMES, 1),
        (1.0, NAMES, 1),
        (True, NAMES, 1),
        (False, NAMES, 0),
        ("positive", NAMES, 1),
        (" Positive ", NAMES, 1),
        (None, NAMES, None),
        ("", NAMES, None),
        (float("nan"), NAMES, None),
        ("5", ("1", "3", "5"), 2),  # a name comes before an index
        (5, ("1", "3", "5"), 2),
        ("no", ("No", "no"), 1),
        ("NO", ("No", "no"), "bad"),  # ambiguous
        (-1, NAMES, "bad"),
        (0.5, NAMES, "bad"),
        (True, ("a", "b", "c"), "bad"),
        ([1], NAMES, "bad"),
    ],
)
def test_labels(value: Any, names: tuple[str, ...], expected: object, tmp_path: Path) -> None:
    rows = [{"sentence": "x", "target": value}, {"sentence": "other", "target": names[0]}]
    loaded = load_lines(tmp_path, *map(json.dumps, rows), label_names=names)
    if expected == "bad":
        assert [f.code for f in loaded.failures] == ["bad_label"]
    else:
        assert loaded.examples[0].label == expected
        assert type(loaded.examples[0].label) in (int, type(None))


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ({"sentence": [[2, 6], [0, 1]]}, (Span(0, 1, "text"), Span(2, 6, "text"))),
        ({"text": [[2, 6]]}, (Span(2, 6, "text"),)),
        ([[2, 6]], (Span(2, 6, "text"),)),
        ("[[2, 6]]", (Span(2, 6, "text"),)),
        ({"text": [[0, 6], [2, 4]]}, (Span(0, 6, "text"), Span(2, 4, "text"))),
        ({"text": []}, ()),
        ({"text": None}, ()),
        (None, None),
        ("", None),
    ],
)
def test_rationales(marked: Any, expected: tuple[Span, ...] | None, tmp_path: Path) -> None:
    row = json.dumps({"sentence": "a good film", "target": 1, "why": marked})
    loaded = load_lines(tmp_path, row, rationale="why", rationale_kind="human")
    (example,) = loaded.examples
    assert example.rationale == expected
    assert example.rationale_kind == (None if expected is None else "human")


@pytest.mark.parametrize(
    "marked",
    [
        [[0, 12]],
        [[-1, 2]],
        [[3, 3]],
        [[0, 1, 2]],
        [[0, 1.5]],
        [[False, True]],
        [5],
        {"other": [[0, 1]]},
        "[[0, 1]",
        7,
    ],
)
def test_bad_rationales(marked: Any, tmp_path: Path) -> None:
    rows = [{"sentence": "a good film", "target": 1, "why": m} for m in (marked, None)]
    loaded = load_lines(tmp_path, *map(json.dumps, rows), rationale="why", rationale_kind="human")
    assert [f.code for f in loaded.failures] == ["bad_rationale"]


def test_rationales_of_several_fields(tmp_path: Path) -> None:
    rows = [
        {"p": "It rains", "h": "wet", "why": {"h": [[0, 3]], "p": [[3, 8]]}},
        {"p": "It rains", "h": "wet", "why": [[0, 3]]},
    ]
    loaded = load_lines(
        tmp_path,
        *map(json.dumps, rows),
        inputs={"premise": "p", "claim": "h"},
        label=None,
        rationale="why",
        rationale_kind="human",
    )
    assert loaded.examples[0].rationale == (Span(3, 8, "premise"), Span(0, 3, "claim"))
    assert "which of ['premise', 'claim']" in loaded.failures[0].message


def test_rationales_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    write_parquet(path, [{"sentence": "a good film", "why": {"sentence": [[2, 6]]}}])
    loaded = load_examples(source(path, label=None, rationale="why", rationale_kind="human"))
    assert loaded.examples[0].rationale == (Span(2, 6, "text"),)


def test_a_sample_depends_on_seed_and_ids_alone(tmp_path: Path) -> None:
    rows = [{"key": f"k{i}", "sentence": f"text {i}", "target": i % 2} for i in range(60)]
    path, reordered = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write_jsonl(path, rows)
    write_jsonl(reordered, rows[::-1])

    def ids(path: Path, **options: Any) -> list[str]:
        return [e.id for e in load_examples(source(path, id="key", **options)).examples]

    sample = ids(path, limit=20, seed=3)
    assert len(sample) == 20
    assert sample == [row["key"] for row in rows if row["key"] in sample]  # in the file's order
    assert ids(reordered, limit=20, seed=3) == sample[::-1]
    assert set(ids(path, limit=10, seed=3)) < set(sample)
    assert ids(path, limit=20, seed=4) != sample
    assert len(ids(path, limit=100)) == len(ids(path)) == 60


def test_bundled_reviews_load_without_a_failure() -> None:
    loaded = load_examples(
        DataSource(
            "bundled:reviews",
            {"review": "text"},
            label="label_name",
            id="id",
            rationale="author_marked",
            rationale_kind="author_marked",
            label_names=NAMES,
        )
    )
    assert loaded.failures == ()
    assert len(loaded.examples) == loaded.n_total >= 200
    first = loaded.examples[0]
    assert first.rationale is not None
    assert {span.field for span in first.rationale} == {"review"}
    assert first.rationale_kind == "author_marked"


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        ([], {}, "no usable row of 0: the file is empty"),
        (["{", "x"], {}, r"no usable row of 2: the first is .*rows\.jsonl:1: this is no JSON"),
        (['{"sentense": "x", "target": 1}'], {}, "no column 'sentence'; did you mean 'sentense'"),
        (
            ['{"sentence": "x", "b": 1}'],
            {},
            r"'target'; .*to null.*columns are \['b', 'sentence'\]",
        ),
        (['{"sentence": "x", "target": 9}'], {}, "no usable row of 1: .*label 9"),
        (['{"sentence": "x"}'], {"label_names": ()}, "need label names"),
        (['{"sentence": "x"}'], {"rationale": "why"}, "rationale_kind"),
        (['{"sentence": "x"}'], {"inputs": {}}, "inputs is empty"),
    ],
)
def test_data_that_gives_nothing_is_refused(
    lines: list[str], options: Row, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        load_lines(tmp_path, *lines, **options)


@pytest.mark.parametrize("name", ["data.csv", "data.parquet"])
def test_columns_are_checked_in_tables(name: str, tmp_path: Path) -> None:
    write = dict(FORMATS)[name]
    write(tmp_path / name, ROWS)
    with pytest.raises(DataError, match="no column 'sentenc'; did you mean 'sentence'"):
        load_examples(source(tmp_path / name, inputs={"text": "sentenc"}))


def test_missing_and_broken_files(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "dev.jsonl", ROWS)
    with pytest.raises(DataError, match=r"no file .*dve\.jsonl.*did you mean .*dev\.jsonl"):
        load_examples(source(tmp_path / "dve.jsonl"))
    with pytest.raises(DataError, match="no file"):
        load_examples(source("nowhere/rows.csv"))
    with pytest.raises(DataError, match=r"bundled are \['bundled:reviews'\]"):
        load_examples(source("bundled:revews"))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="unknown format"):
        load_examples(source(tmp_path / "notes.txt"))
    (tmp_path / "list.json").write_text('[{"sentence": "x"},')
    with pytest.raises(DataError, match="this is no JSON"):
        load_examples(source(tmp_path / "list.json"))
    whole = gzip.compress(b'{"sentence": "x", "target": 1}\n' * 1000)
    for name, content in [
        ("a.jsonl.gz", whole[:-20]),
        ("b.jsonl.gz", b"no gzip"),
        ("c.parquet", b"no parquet"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="is it complete"):
            load_examples(source(tmp_path / name))


class FakeHub:
    """Stands for the package `datasets`."""

    def __init__(self, result: object) -> None:
        self.result = result
        self.asked: tuple[object, ...] = ()

    def load_dataset(self, path: str, subset: str | None, split: str | None) -> object:
        self.asked = (path, subset, split)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_hugging_face_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list([{**row, "unused": 1} for row in ROWS])
    hub = FakeHub(rows)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    loaded = load_examples(source("stanfordnlp/sst2", split="validation", subset="plain"))
    assert hub.asked == ("stanfordnlp/sst2", "plain", "validation")
    assert [e.id for e in loaded.examples] == [f"sst2-validation-{i}" for i in (1, 2, 3)]
    assert [e.label for e in loaded.examples] == [1, 0, None]
    with pytest.raises(DataError, match="no column 'sentance'; did you mean 'sentence'"):
        load_examples(source("stanfordnlp/sst2", inputs={"text": "sentance"}))
    hub.result = DatasetDict({"train": rows, "test": rows})
    with pytest.raises(DataError, match=r"splits \['test', 'train'\]: set data.split"):
        load_examples(source("stanfordnlp/sst2"))


def test_without_network_or_library_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", FakeHub(ConnectionError("no route to the hub")))
    with pytest.raises(DataError, match=r"no route to the hub(.|\n)*bundled:reviews"):
        load_examples(source("stanfordnlp/sst2", split="train"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="need the package `datasets`"):
        load_examples(source("stanfordnlp/sst2", split="train"))


def test_the_key_is_of_the_texts_alone() -> None:
    key = example_key({"a": "x", "b": "y"})
    assert key == example_key({"b": "y", "a": "x"})
    assert len(key) == 16
    assert len({key, example_key({"a": "y", "b": "x"}), example_key({"a": "xy", "b": ""})}) == 3


def test_lines_are_those_of_the_file_not_of_unicode(tmp_path: Path) -> None:
    stream = io.BytesIO()
    for text in ("a\u2028b", "c\x85d"):
        stream.write(json.dumps({"sentence": text, "target": 0}, ensure_ascii=False).encode())
        stream.write(b"\r\n")
    for name in ("rows.jsonl", "rows.json"):
        (tmp_path / name).write_bytes(stream.getvalue())
        loaded = load_examples(source(tmp_path / name))
        assert [e.fields["text"] for e in loaded.examples] == ["a\u2028b", "c\x85d"]


def test_rows_with_other_labels_are_left_out_and_counted_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [{"sentence": f"s{i}", "target": label} for i, label in enumerate([0, 1, 2, 2, None, 1])]
    write_jsonl(path, rows)
    kept = load_examples(source(path, label_names=("0", "2"), skip_other_labels=True))
    assert [e.label for e in kept.examples] == [0, 1, 1, None]
    assert (kept.n_total, kept.n_other_labels, kept.failures) == (6, 2, ())
    reported = load_examples(source(path, label_names=("0", "2")))
    assert [f.code for f in reported.failures] == ["bad_label", "bad_label"]
    assert reported.n_other_labels == 0
    write_jsonl(path, rows[:2])
    with pytest.raises(DataError, match="all have labels that are none of"):
        load_examples(source(path, label_names=("7", "8"), skip_other_labels=True))
