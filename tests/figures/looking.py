"""What can be seen of a figure: lines by name, the texts that are drawn, where they stand."""

from collections.abc import Iterator
from unittest import mock

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def panel(figure: Figure, label: str) -> Axes:
    """The panel with this title, or whose vertical label starts with `label`."""
    for axes in figure.axes:
        if axes.get_title() == label or axes.get_ylabel().replace("\n", " ").startswith(label):
            return axes
    raise AssertionError(f"no panel is called {label!r}")


def line(axes: Axes, name: str) -> Line2D:
    """The only line called `name`."""
    (found,) = [each for each in axes.lines if each.get_label() == name]
    return found


def lines_called(figure: Figure, name: str) -> Iterator[Line2D]:
    """Every line called `name` in any panel."""
    for axes in figure.axes:
        yield from (each for each in axes.lines if each.get_label() == name)


def assert_draws(drawn: Line2D, x: np.ndarray, y: np.ndarray) -> None:
    """The line holds exactly these numbers: not smoothed, thinned or moved."""
    np.testing.assert_array_equal(drawn.get_xdata(), x)
    np.testing.assert_array_equal(drawn.get_ydata(), y)


def drawn_texts(figure: Figure) -> list[Text]:
    """Texts that really are drawn: visible, not empty, no tick outside its axis."""
    seen: list[Text] = []
    draw = Text.draw

    def spy(text: Text, renderer) -> None:
        if text.get_visible() and text.get_text():
            seen.append(text)
        draw(text, renderer)

    with mock.patch.object(Text, "draw", spy):
        figure.draw_without_rendering()
    return list(dict.fromkeys(seen))


def words_of(figure: Figure) -> str:
    """All drawn texts in one string."""
    return " | ".join(text.get_text() for text in drawn_texts(figure))


def outside(figure: Figure, texts: list[Text], tolerance: float = 1.0) -> list[str]:
    """Texts that the page cuts; tolerance in pixels."""
    page = figure.bbox.padded(tolerance)
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [
        text for text, box in boxes if not (page.contains(*box.min) and page.contains(*box.max))
    ]


def overlapping(texts: list[Text], tolerance: float = 1.0) -> list[tuple[str, str]]:
    """Pairs of texts that stand on each other by more than `tolerance` pixels both ways."""
    boxes = np.array([text.get_window_extent().extents for text in texts])
    low, high = boxes[:, :2], boxes[:, 2:]
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    first, second = np.nonzero(np.triu((shared > tolerance).all(axis=2), k=1))
    return [(texts[i].get_text(), texts[j].get_text()) for i, j in zip(first, second, strict=True)]


def legend_over_data(figure: Figure) -> list[str]:
    """Panels that the legend covers in part."""
    covers = [legend.get_window_extent() for legend in figure.legends]
    panels = [axes for axes in figure.axes if axes.axison]
    return [
        axes.get_ylabel() or axes.get_title()
        for axes in panels
        for cover in covers
        if (shared := Bbox.intersection(axes.get_window_extent(), cover)) and shared.size.min() > 1
    ]
