"""A plot with its title, text and legend, as HTML."""

from html import escape


def figure_html(title: str, text: str, drawing: str, legend) -> str:
    """A titled `<figure>` for a page; `legend` holds (swatch as SVG, name) pairs."""
    items = "".join(f"<li>{swatch}<span>{escape(name)}</span></li>" for swatch, name in legend)
    drawing = drawing.replace("<svg", f'<svg aria-label="{escape(title)}"', 1)
    return (
        f"<figure><figcaption>{escape(title)}<span>{escape(text)}</span></figcaption>{drawing}"
        f'<ul class="legend">{items}</ul></figure>'
    )
