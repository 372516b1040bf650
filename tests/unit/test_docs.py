"""The documents: their Python runs and prints what they say, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
PYTHON = re.compile(
    r"^```python\n(?P<code>.*?)^```$(?:\n+^```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
NOT_A_FILE = re.compile(r"[a-z]+:|#")


class Block(NamedTuple):
    """A block of Python, and what it prints if the document says so."""

    name: str
    code: str
    output: str | None


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [
        Block(
            f"{document.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 2}",
            found["code"],
            found["output"],
        )
        for found in PYTHON.finditer(text)
    ]


def links(text: str) -> list[str]:
    """Return the targets of relative links outside code, without their anchors."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    targets = [found["target"] for found in LINK.finditer(prose)]
    return [t.partition("#")[0] for t in targets if not NOT_A_FILE.match(t)]


BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]


def test_the_documents_with_examples_have_them() -> None:
    having = {block.name.partition(":")[0] for block in BLOCKS}
    assert {"README.md", "docs/explainers.md", "docs/metrics.md"} <= having
    fences = sum(d.read_text(encoding="utf-8").count("```python") for d in DOCUMENTS)
    assert len(BLOCKS) == fences, "a block of Python is not closed or is indented"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_python_runs_and_prints_what_is_said(
    block: Block,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.code, block.name, "exec"), {"__name__": "__main__"})
    if block.output is not None:
        assert capsys.readouterr().out == block.output


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_point_to_files(document: Path) -> None:
    targets = links(document.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing, f"{document.name} links to {missing}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_tests_that_are_named_exist(document: Path) -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    known = {name for source in sources for name in re.findall(r"^ *def (test_\w+)", source, re.M)}
    named = re.findall(r"`(test_\w+)(…?)`", document.read_text(encoding="utf-8"))
    for name, cut in named:
        assert name in known or (cut and any(k.startswith(name) for k in known)), name


def test_links_are_found_outside_code_only() -> None:
    text = (
        "see [a](docs/a.md), [b](b.md#part), [c](https://c.org) and [d](#d)\n"
        "`[e](e.md)`\n```bash\n[f](f.md)\n```\n[g](../g.py)\n"
    )
    assert links(text) == ["docs/a.md", "b.md", "../g.py"]
