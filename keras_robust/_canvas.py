"""A matplotlib figure of one look, as SVG for a page or as a picture on disk."""

import contextlib
import io
import re
import warnings
from pathlib import Path

from keras_robust._files import beside

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "keras_robust",
    # Names are the user's: a "$" in one is no formula.
    "text.parse_math": False,
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 11,
    "axes.edgecolor": "#8a94a3",
    "axes.labelcolor": "#1d2530",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e7ee",
    "grid.linewidth": 0.8,
    "xtick.color": "#3c4654",
    "ytick.color": "#3c4654",
    "figure.facecolor": "white",
}
INCHES = (5.6, 4.0)


def svg(draw, prefix: str, inches=INCHES) -> str:
    """Runs `draw(axes)` and returns SVG fit to stand in a page beside others.

    Args:
        draw: fills the axes it is given.
        prefix: of the ids inside, other for each picture of a page.
        inches: width, height.
    """
    with _figure(inches) as figure:
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue(), prefix)


def picture(draw, path, inches=INCHES, dpi: int = 160) -> Path:
    """Runs `draw(axes)` and writes a PNG, or what the suffix of `path` says; returns the path.

    Raises:
        ValueError: a suffix that matplotlib does not write, or a folder that cannot be written.
    """
    path = Path(path)
    with _figure(inches) as figure:
        kinds = figure.canvas.get_supported_filetypes()
        kind = path.suffix[1:].lower() or "png"
        if kind not in kinds:
            raise ValueError(
                f"`path` is {str(path)!r}, but pictures are written as {', '.join(sorted(kinds))}. "
                "Give a path that ends in .png."
            )
        draw(figure.add_subplot())
        with beside(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=dpi)
    return path


@contextlib.contextmanager
def _figure(inches):
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The context puts back what the user had set; pyplot and its figures are not involved.
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that matplotlib's font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _for_page(drawing: str, prefix: str) -> str:
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, count=1, flags=re.DOTALL)
    head, rest = drawing.split(">", 1)
    # An HTML parser knows both namespaces; sizes come from the page.
    head = re.sub(r'\s(xmlns(:\w+)?|width|height)="[^"]*"', "", head)
    rest = re.sub(r'\bid="', f'id="{prefix}-', rest)
    rest = rest.replace("url(#", f"url(#{prefix}-").replace('href="#', f'href="#{prefix}-')
    return head + ' role="img">' + rest
