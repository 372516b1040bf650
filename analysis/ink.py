"""The colours of the figures: on paper, and as stand-ins for the variables of the page."""

from __future__ import annotations

from typing import NamedTuple

from analysis.heatmap import LIGHT


class Ink(NamedTuple):
    """Colours of a figure; `series` tell combinations of factors apart, as the markers do."""

    text: str
    grid: str
    positive: str
    negative: str
    series: tuple[str, ...]


PRINT = Ink(
    LIGHT.text,
    "#d4d2cc",
    LIGHT.positive,
    LIGHT.negative,
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#a6761d"),  # Okabe and Ito (2008)
)
DARK_SERIES = ("#56b4e9", "#ff9a4d", "#35c79b", "#e6a3c8", "#a9c9ff", "#d9b35c")
THEMED = Ink("#fe0001", "#fe0002", "#fe0003", "#fe0004", tuple(f"#fe001{i}" for i in range(6)))
"""Stand-ins that become the page's CSS variables."""
VARIABLES = {
    THEMED.text: "var(--text)",
    THEMED.grid: "var(--line)",
    THEMED.positive: "var(--positive)",
    THEMED.negative: "var(--negative)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(THEMED.series)},
}
"""The variable of each stand-in."""
