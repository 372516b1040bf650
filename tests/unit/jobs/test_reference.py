"""The reference of the configuration."""

from __future__ import annotations

from pathlib import Path

from jobs.reference import reference

ROOT = Path(__file__).resolve().parents[3]


def test_the_document_is_the_reference_of_this_code() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == reference(), "run `python -m jobs.reference > docs/configuration.md`"
