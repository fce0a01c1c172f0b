"""Colour, line and marker of each artifact, the same in all plots and legends."""

import typing

# Told apart by colour-blind readers too: Okabe and Ito's, yellow left out, two added.
_COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#b4559b", "#c98700", "#2f9bd6", "#5b3e96", "#4d4d4d",
)  # fmt: skip
_MARKERS = "os^Dv"
# What matplotlib and SVG call the same dashes.
_LINES = (("-", ""), ((0, (5, 2)), "5 2"), ((0, (1.5, 1.5)), "1.5 1.5"))
_SHAPES = {
    "o": '<circle cx="17" cy="6" r="4"/>',
    "s": '<rect x="13.2" y="2.2" width="7.6" height="7.6"/>',
    "^": '<path d="M17 1.4 21.4 10H12.6z"/>',
    "D": '<path d="M17 1 22 6 17 11 12 6z"/>',
    "v": '<path d="M17 10.6 21.4 2H12.6z"/>',
}


class Mark(typing.NamedTuple):
    """How one artifact is drawn."""

    color: str
    marker: str
    line: object
    dashes: str

    def swatch(self, dashes: str | None = None, hollow: bool = False) -> str:
        """A small SVG of line and marker, for a legend in HTML."""
        dashes = self.dashes if dashes is None else dashes
        dash = f' stroke-dasharray="{dashes}"' if dashes else ""
        fill, edge = ("#fff", self.color) if hollow else (self.color, "#fff")
        return (
            '<svg class="swatch" viewBox="0 0 34 12" aria-hidden="true">'
            f'<path d="M0 6H34" stroke="{self.color}" stroke-width="2.2" fill="none"{dash}/>'
            f'<g fill="{fill}" stroke="{edge}">{_SHAPES[self.marker]}</g></svg>'
        )


def mark_of(index: int) -> Mark:
    """The mark of the artifact with this number; 8 colours, then other markers and dashes."""
    line, dashes = _LINES[index // len(_COLORS) % len(_LINES)]
    return Mark(
        _COLORS[index % len(_COLORS)],
        _MARKERS[(index + index // len(_COLORS)) % len(_MARKERS)],
        line,
        dashes,
    )
