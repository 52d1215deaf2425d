"""How every figure looks: page widths, one style per optimizer, palettes of the other words.

Nothing here touches matplotlib's global settings: `venue_style` is a context, entered while a
figure is built and again while it is drawn (`bayesfilt.figures.layout.VenueFigure`).
Fonts ship with matplotlib, so that a figure is the same on every machine and needs no LaTeX.
"""

import colorsys
import hashlib
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib.style
from matplotlib.colors import to_hex

from bayesfilt.checks import require_one_of


class Venue(NamedTuple):
    """The page a figure is made for, as wide as the venue's own style file makes its text.

    ICML alone sets two columns: `icml` is one of them, `icml_wide` both and the gap between.
    """

    width: float  # of the text, or of one column of it; inches
    scale: float  # size of letters, lines and markers; 1 is 8-point text


VENUES = {
    "neurips": Venue(width=5.5, scale=1.0),
    "icml": Venue(width=3.25, scale=1.0),
    "icml_wide": Venue(width=6.75, scale=1.0),
    "iclr": Venue(width=5.5, scale=1.0),
    "tmlr": Venue(width=6.5, scale=1.0),
    "jmlr": Venue(width=6.0, scale=1.0),
    "talk": Venue(width=10.0, scale=1.9),
}

Dashes = tuple[float, ...]  # lengths on, off, on, off ... in line widths; () is a solid line


class LineStyle(NamedTuple):
    """Colour, marker and dashes: any one of the three is enough to tell lines apart."""

    color: str
    marker: str
    dashes: Dashes

    @property
    def linestyle(self) -> Any:
        """The dashes as matplotlib wants them."""
        return (0, self.dashes) if self.dashes else "solid"


# Lightness rises from black in steps of 7 or more (CIELAB), so a grey print keeps them apart;
# hues stay apart under the three common kinds of colour blindness. A test measures both.
_OPTIMIZERS = {
    "adamw": LineStyle(color="#000000", marker="o", dashes=()),
    "adam": LineStyle(color="#451a6e", marker="v", dashes=(5, 1.5)),
    "adabayes_fixed_point": LineStyle(color="#0a4690", marker="s", dashes=(3.5, 1.2)),
    "sgd": LineStyle(color="#97431f", marker="<", dashes=(1.2, 1.2)),
    "sgdw": LineStyle(color="#22804f", marker=">", dashes=(6, 1.2, 1.2, 1.2, 1.2, 1.2)),
    "adabayes": LineStyle(color="#dc5a22", marker="^", dashes=(5, 1.2, 1.2, 1.2)),
    "adam_large_eps": LineStyle(color="#c77fb5", marker="P", dashes=(2, 1)),
    "mean_square": LineStyle(color="#56b4e9", marker="X", dashes=(7, 1.5, 2, 1.5)),
    "steady_state": LineStyle(color="#e6b73f", marker="D", dashes=(1.6, 0.8)),
}

# Different spellings of one idea share its style.
_SAME_AS = {
    "kalman": "adabayes",
    "fixed_point": "adabayes_fixed_point",
    "adabayes_steady_state": "steady_state",
    "exact": "steady_state",
}

_SPARE_HUES = 12
_SPARE_LIGHTNESSES = (0.28, 0.42, 0.56)
_SPARE_MARKERS = "pdh*"
_SPARE_DASHES: tuple[Dashes, ...] = (
    (8, 2), (4, 1, 1, 1, 1, 1), (2.5, 2.5), (1, 0.6), (9, 1.5, 1, 1.5), (3, 1, 3, 3),
)  # fmt: skip

PART_STYLES = {
    "decay": LineStyle(color="#882255", marker="o", dashes=()),
    "variance": LineStyle(color="#5f6f86", marker="s", dashes=(5, 1.2)),
    "momentum": LineStyle(color="#44aa99", marker="^", dashes=(5, 1.2, 1.2, 1.2)),
    "eps": LineStyle(color="#d3b96a", marker="D", dashes=(1.4, 1)),
}
# Broad greys: optimizers are drawn over them. The first is solid, because the first two coincide
# under every schedule where they agree at its start.
CONVENTION_STYLES = {
    "lr_scaled": LineStyle(color="#cfcfcf", marker="", dashes=()),
    "paper": LineStyle(color="#8f8f8f", marker="", dashes=(1.2, 1.2)),
    "filter": LineStyle(color="#8f8f8f", marker="", dashes=(4, 1)),
}
# Transitions of the optimum, as `bayesfilt infer` compares them.
MODEL_STYLES = {
    "static": LineStyle(color="#2b2b2b", marker="o", dashes=()),
    "ornstein_uhlenbeck": LineStyle(color="#6a1b86", marker="s", dashes=(6, 1.2)),
    "shrinking_walk": LineStyle(color="#a51243", marker="X", dashes=(4.5, 1.2, 1.2, 1.2, 1.2, 1.2)),
    "random_walk": LineStyle(color="#00707c", marker="^", dashes=(3.5, 1.2)),
    "nonzero_mean": LineStyle(color="#cf5f2a", marker="D", dashes=(5, 1.2, 1.2, 1.2)),
    "l2": LineStyle(color="#4db48c", marker="v", dashes=(1.6, 0.9)),
    "velocity": LineStyle(color="#a6b8ea", marker="P", dashes=(7, 1.5, 2, 1.5)),
}
THEORY_COLOR = "#000000"
LIMIT_COLOR = "#555555"
NOISE_COLOR = "#c4c4c4"
GUIDE_COLOR = "#9a9a9a"


def optimizer_style(name: str) -> LineStyle:
    """Style of the optimizer called `name`: the same in every figure, whoever else is drawn.

    A name that is not in the table gets a style computed from its letters alone, so that it is
    the same in every figure and every process: one of 36 colours, 4 markers and 6 dashes.
    """
    known = name.lower().replace("-", "_").replace(" ", "_").removeprefix("scale_by_")
    known = _SAME_AS.get(known, known)
    if known in _OPTIMIZERS:
        return _OPTIMIZERS[known]
    hue, lightness, marker, dashes = hashlib.blake2b(name.encode()).digest()[:4]
    red_green_blue = colorsys.hls_to_rgb(
        hue % _SPARE_HUES / _SPARE_HUES,
        _SPARE_LIGHTNESSES[lightness % len(_SPARE_LIGHTNESSES)],
        0.6,
    )
    return LineStyle(
        color=to_hex(red_green_blue),
        marker=_SPARE_MARKERS[marker % len(_SPARE_MARKERS)],
        dashes=_SPARE_DASHES[dashes % len(_SPARE_DASHES)],
    )


def model_style(name: str) -> LineStyle:
    """Style of a state-space model: that of its transition, which its name begins with.

    A name without a known transition gets one as an unknown optimizer does.
    """
    transition = name.split(",")[0].split(":")[0].strip()
    return MODEL_STYLES.get(transition) or optimizer_style(name)


def known_optimizers() -> tuple[str, ...]:
    """Names with a style of their own."""
    return tuple(_OPTIMIZERS)


def venue_named(name: str) -> Venue:
    """Entry of `VENUES`; ValueError says which there are."""
    require_one_of("a figure", "venue", name, VENUES)
    return VENUES[name]


def rc_params(name: str) -> dict[str, Any]:
    """Return matplotlib settings of one venue, as a plain dict over matplotlib's own defaults."""
    scale = venue_named(name).scale
    ticks = {
        f"{axis}tick.{key}": value * scale
        for axis in "xy"
        for key, value in {
            "labelsize": 7, "major.size": 2.5, "minor.size": 1.4,
            "major.width": 0.6, "minor.width": 0.4, "major.pad": 2.0,
        }.items()
    }  # fmt: skip
    return ticks | {
        "font.family": ["STIXGeneral", "DejaVu Sans"],
        "mathtext.fontset": "stix",
        "text.usetex": False,
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "svg.fonttype": "path",  # letters look the same where the fonts are missing
        "svg.hashsalt": "bayesfilt",  # equal names inside for equal figures
        "font.size": 8 * scale,
        "axes.titlesize": 8 * scale,
        "axes.labelsize": 8 * scale,
        "figure.labelsize": 8 * scale,
        "axes.titlepad": 3 * scale,
        "axes.labelpad": 2 * scale,
        "axes.linewidth": 0.6 * scale,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.use_mathtext": True,
        "axes.formatter.limits": (-3, 4),
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.4 * scale,
        "lines.linewidth": 1.0 * scale,
        "lines.solid_capstyle": "butt",
        "lines.markersize": 3.4 * scale,
        "lines.markeredgewidth": 0.4 * scale,
        "hatch.linewidth": 0.4 * scale,
        "legend.fontsize": 7 * scale,
        "legend.frameon": False,
        "legend.handlelength": 2.6,
        "legend.handletextpad": 0.5,
        "legend.columnspacing": 1.3,
        "legend.labelspacing": 0.3,
        "legend.borderaxespad": 0.2,
        "legend.borderpad": 0.2,
        "figure.constrained_layout.w_pad": 0.03 * scale,
        "figure.constrained_layout.h_pad": 0.025 * scale,
        "figure.dpi": 100,
        "savefig.dpi": 300,
    }


def venue_style(name: str) -> AbstractContextManager[None]:
    """Context in which matplotlib draws for one venue, whatever the user's own settings are."""
    return matplotlib.style.context(["default", rc_params(name)])
