"""Figures of one model's sampling, drawn by ArviZ: its chains, and its posterior over its prior.

Unlike the other figures these take the DataTree of a fit, which is what ArviZ draws; they make
nothing of it but the logarithm. ArviZ builds on pyplot, so that a figure is taken from there and
closed; `save_figure` within `venue_style` writes it as any other.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bayesfilt.figures.layout import wrap
from bayesfilt.figures.panels import plain
from bayesfilt.figures.style import NOISE_COLOR, VENUES, model_style, venue_style

if TYPE_CHECKING:
    import xarray

# How a parameter is called on an axis; the logarithm is drawn of those in the first table.
LOGARITHMIC = {
    "shrink": "shrink\n(per step)",
    "drift_scale": "drift scale\n(weight)",
    "stationary_variance": "stationary\nvariance\n(weight²)",
    "noise_ratio": "noise ratio\n(R / H)",
    "measurement_variance": "measurement\nvariance\n(weight²)",
    "initial_variance": "initial\nvariance\n(weight²)",
    "penalty": "L2 penalty\n(1/weight²)",
    "velocity_shrink": "velocity's\nshrink\n(per step)",
    "velocity_drift_scale": "velocity's drift\n(weight)",
}
LINEAR = {
    "towards": "mean of optima\n(weight)",
    "degrees_of_freedom": "degrees of\nfreedom (tails)",
}

_LAYER_COLORS = ("#0a4690", "#dc5a22", "#22804f", "#882255", "#b08a1f", "#56b4e9", "#5f6f86")
_CHAIN_LINES = ("solid", "dashed", "dotted", "dashdot")
_PANEL_HEIGHT = 1.0  # inches at 8-point text
_LEGEND_HEIGHT = 0.5
_LEGEND_COLUMNS = 5


def chains_figure(
    tree: "xarray.DataTree", name: str, venue: str = "neurips", *, failed: bool = False
) -> Figure:
    """Each chain's distribution of every parameter, and of its ranks among all draws.

    Chains that found the same posterior lie on each other on the left and stay near the middle on
    the right, where a line is how far a chain's ranks exceed an even spread.

    Args:
        tree: a fit: group posterior, parameters over (chain, draw, layer).
        name: of the model, for the title.
        venue: name in `bayesfilt.figures.VENUES`.
        failed: whether the fit failed a gate; the title says so.

    Returns:
        The figure, as wide as the venue's column.
    """
    import arviz

    draws, labels = _drawn(tree, "posterior")
    layers = [str(layer) for layer in draws["layer"].values]
    colors = [_LAYER_COLORS[index % len(_LAYER_COLORS)] for index in range(len(layers))]
    with venue_style(venue):
        made = arviz.plot_rank_dist(
            _as_tree(tree, posterior=draws),
            compact=True,
            kind="kde",
            backend="matplotlib",
            labeller=arviz.labels.MapLabeller(var_name_map={**labels}),
            color=colors * max(1, -(-3 // len(colors))) * len(draws.data_vars),
            linestyle=list(_CHAIN_LINES),
            figure_kwargs=_page(venue, len(draws.data_vars)),
        )
        figure = _taken_from_pyplot(made)
        for left, right in zip(figure.axes[::2], figure.axes[1::2], strict=True):
            left.set_xlabel(right.get_ylabel().replace("\n", " "))
            left.set_ylabel("density", linespacing=0.95)
            right.set_ylabel("")
            right.set_xlabel("rank among all draws")
        chains = draws.sizes.get("chain", 1)
        handles = [
            Line2D([], [], color=color, label=plain(layer))
            for color, layer in zip(colors, layers, strict=True)
        ]
        handles += [
            Line2D(
                [],
                [],
                color="#555555",
                linestyle=_CHAIN_LINES[chain % 4],
                label=f"chain {chain + 1}",
            )
            for chain in range(chains)
        ]
        _entitle(figure, name, handles, failed=failed)
        return figure


def posterior_figure(
    tree: "xarray.DataTree", name: str, venue: str = "neurips", *, failed: bool = False
) -> Figure:
    """Every parameter's posterior over its prior, a row for each, a column for each layer.

    Where the two are alike the streams say nothing of the parameter.

    Args:
        tree: a fit: groups posterior and prior, parameters over (chain, draw, layer).
        name: of the model, for the title.
        venue: name in `bayesfilt.figures.VENUES`.
        failed: whether the fit failed a gate; the title says so.

    Returns:
        The figure, as wide as the venue's column.
    """
    import arviz

    draws, labels = _drawn(tree, "posterior")
    prior, _ = _drawn(tree, "prior")
    prior = prior[[each for each in draws.data_vars if each in prior]]
    draws = draws[list(prior.data_vars)]
    style = model_style(name)
    with venue_style(venue):
        made = arviz.plot_prior_posterior(
            _as_tree(tree, posterior=draws, prior=prior),
            kind="kde",
            backend="matplotlib",
            visuals={"title": False},
            color=[NOISE_COLOR, style.color],
            cols=["__variable__", "layer"],
            col_wrap=draws.sizes["layer"],
            figure_kwargs=_page(venue, len(draws.data_vars)),
        )
        figure = _taken_from_pyplot(made)
        for legend in figure.legends:  # ArviZ's own, which names dimensions
            legend.remove()
        layers = [str(layer) for layer in draws["layer"].values]
        letters = max(10, 60 // len(layers))
        panels = [axes for axes in figure.axes if axes.axison]
        for index, axes in enumerate(panels):
            row, column = divmod(index, len(layers))
            if row == 0:
                axes.set_title(wrap(plain(layers[column]), letters))
            axes.set_xlabel("")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
            if column == 0:
                axes.set_ylabel(labels[str(list(draws.data_vars)[row])], linespacing=0.95)
        figure.align_ylabels()
        handles = [
            Line2D([], [], color=NOISE_COLOR, label="prior"),
            Line2D([], [], color=style.color, label="posterior"),
        ]
        _entitle(figure, name, handles, failed=failed)
        return figure


def _drawn(tree: "xarray.DataTree", group: str) -> tuple["xarray.Dataset", dict[str, str]]:
    """The layers' parameters as they are drawn, and what they are called."""
    found = tree[group].to_dataset()
    labels: dict[str, str] = {}
    drawn = {}
    for name, label in {**LOGARITHMIC, **LINEAR}.items():
        if name not in found:
            continue
        is_log = name in LOGARITHMIC
        drawn[name] = np.log10(found[name]) if is_log else found[name]
        labels[name] = f"$\\log_{{10}}$ {label}" if is_log else label
    return found.assign(drawn)[list(drawn)], labels


def _as_tree(tree: "xarray.DataTree", **groups: "xarray.Dataset") -> "xarray.DataTree":
    return type(tree).from_dict(dict(groups))


def _page(venue: str, rows: int) -> dict[str, object]:
    """Size of the figure that ArviZ opens."""
    width, scale = VENUES[venue]
    return {
        "figsize": (width, (rows * _PANEL_HEIGHT + _LEGEND_HEIGHT) * scale),
        "layout": "constrained",
    }


def _taken_from_pyplot(made) -> Figure:
    """The figure that ArviZ made, which pyplot need not keep."""
    from matplotlib import pyplot

    figure = made.viz["figure"].item()
    pyplot.close(figure)
    return figure


def _entitle(figure: Figure, name: str, handles: Sequence[Line2D], *, failed: bool) -> None:
    """The legend above all panels, the model's name above it."""
    figure.legend(
        handles=list(handles),
        title=plain(name) + (": FAILED ITS GATES" if failed else ""),
        loc="outside upper center",
        ncols=min(_LEGEND_COLUMNS, len(handles)),
    )
