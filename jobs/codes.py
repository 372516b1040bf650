"""Exit codes of a sweep."""

from __future__ import annotations

DONE = 0
SOME_FAILED = 2
"""Some examples failed; each is a row of `failures/`."""
ABORTED = 3
