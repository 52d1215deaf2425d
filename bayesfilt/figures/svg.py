"""A figure as SVG inside a page: equal text for equal data, and no name that another one has."""

import contextlib
import io
import re
from collections.abc import Iterator

from matplotlib.artist import Artist
from matplotlib.collections import Collection
from matplotlib.lines import Line2D

from bayesfilt.figures.layout import VenueFigure

# Beyond so many markers a cloud is a picture: drawn one by one it takes a megabyte.
MANY_MARKERS = 400
_DOTS_PER_INCH = 200
_NAMES = re.compile(r'(\bid="|href="#|url\(#)')


def svg_text(figure: VenueFigure, name: str, *, title: str = "") -> str:
    """The `svg` element of a figure, to stand in an HTML page among others.

    It fills the width that the page gives it; `name` keeps its inner names apart from those of
    other figures, and `title` is read to those who cannot see it.

    Raises:
        ValueError: `name` is not made of letters, digits, - and _.
    """
    if not re.fullmatch(r"[A-Za-z][-\w]*", name, re.ASCII):
        raise ValueError(f"svg_text needs a name of letters, digits, - and _, got {name!r}.")
    written = io.StringIO()
    with _clouds_as_pictures(figure):
        figure.savefig(written, format="svg", dpi=_DOTS_PER_INCH, metadata=_NOTHING)
    text = written.getvalue()
    start = re.search(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', text)
    assert start is not None, "matplotlib writes the size of its page"
    body = text[start.end() : text.rindex("</svg>")]
    # One rule for all strokes, which would hold for the whole page.
    body = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda found: found.group(0) * (found[1] in used), body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    body = _NAMES.sub(lambda found: found.group(0) + f"{name}-", body)
    width, height = (float(each) for each in start.group(1).split()[2:])
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
        f' role="img" aria-labelledby="{name}-title"'
        ' style="stroke-linejoin:round;stroke-linecap:butt">'
        f'<title id="{name}-title">{_escaped(title)}</title>{body.strip()}</svg>'
    )


# Matplotlib would write its version and the time of day.
_NOTHING = {"Creator": None, "Date": None, "Format": None, "Type": None}


@contextlib.contextmanager
def _clouds_as_pictures(figure: VenueFigure) -> Iterator[None]:
    """Draw thousands of markers as one picture, here and nowhere else."""
    clouds = [each for each in figure.findobj(_is_cloud) if not each.get_rasterized()]
    for each in clouds:
        each.set_rasterized(True)
    try:
        yield
    finally:
        for each in clouds:
            each.set_rasterized(False)


def _is_cloud(artist: Artist) -> bool:
    if isinstance(artist, Line2D):
        if artist.get_marker() in ("", "None", " ", None):
            return False
        every = artist.get_markevery()
        return every is None and len(artist.get_xdata(orig=False)) > MANY_MARKERS  # pyright: ignore[reportArgumentType]
    return isinstance(artist, Collection) and len(artist.get_offsets()) > MANY_MARKERS  # pyright: ignore[reportArgumentType]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
