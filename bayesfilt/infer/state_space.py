"""The state-space models of training that compete, by name, and the numbers each of them has.

A model says how an optimum moves (`transition`), how noisy a look at it is (`noise`), how
surprises are scored (`tails`), and whether the streams of a layer share their numbers (`pooling`).
"""

from typing import NamedTuple

from jaxtyping import Array, Float

from bayesfilt.checks import require_one_of

# Constrained value of every parameter, by name; one for each stream.
Numbers = dict[str, Float[Array, " streams"]]

TRANSITIONS = {
    "static": ("initial_variance",),
    "random_walk": ("drift_scale", "initial_variance"),
    "ornstein_uhlenbeck": ("drift_scale", "stationary_variance"),
    "shrinking_walk": ("drift_scale", "stationary_variance", "initial_variance"),
    "l2": ("drift_scale", "penalty", "initial_variance"),
    "velocity": (
        "drift_scale",
        "stationary_variance",
        "velocity_shrink",
        "velocity_drift_scale",
    ),
    "nonzero_mean": ("drift_scale", "stationary_variance", "towards"),
}
NOISES = {"gradient": ("matched", "free"), "optimum": ("none", "free")}
FREE_NOISE = {"gradient": "noise_ratio", "optimum": "measurement_variance"}
TAILS = ("gaussian", "student_t")
POOLINGS = ("layer", "stream")
# Hardly anything in one stream speaks of these, so the streams of a layer always share them.
SHARED = ("initial_variance", "degrees_of_freedom")


class Model(NamedTuple):
    """One model of how streams came about; four words, so that it can be a static argument.

    `transition`: "static", "random_walk", "ornstein_uhlenbeck" (drawn back to 0: weight decay),
    "shrinking_walk" (the same, but not at rest when the record begins: its spread there is a number
    of its own, so that only what happens within the record speaks of the shrink), "l2" (a random
    walk whose prior is looked at again at every step: shrink in proportion to the posterior
    variance), "velocity", "nonzero_mean" (drawn back to another value).

    `noise`: for gradients "matched" (variance R = h, the curvature) or "free" (R = r h); for
    optima "none" (measured exactly) or "free" (an unknown variance R).

    `tails`: "gaussian", or "student_t": every innovation is scored by Student's t with the
    variance that the Gaussian filter gives it. That is a sequential predictive model and has no
    latent path; so is "l2", whose observations are in part its own.

    `pooling`: "layer", one number a layer; "stream", a hierarchy in which every stream has numbers
    of its own around those of its layer.
    """

    transition: str
    noise: str
    tails: str
    pooling: str


MODELS = {
    name: Model(transition=name, noise="free", tails="gaussian", pooling="layer")
    for name in TRANSITIONS
}


def model_named(
    transition: str, *, noise: str = "free", tails: str = "gaussian", pooling: str = "layer"
) -> Model:
    """Model of a transition; the other three words have defaults.

    Raises:
        ValueError: a word that is not known; the nearest ones are offered.
    """
    noises = sorted({word for words in NOISES.values() for word in words})
    require_one_of("model_named", "transition", transition, TRANSITIONS)
    require_one_of("model_named", "noise", noise, noises)
    require_one_of("model_named", "tails", tails, TAILS)
    require_one_of("model_named", "pooling", pooling, POOLINGS)
    return Model(transition=transition, noise=noise, tails=tails, pooling=pooling)


def parameter_names(model: Model, kind: str = "gradient") -> tuple[str, ...]:
    """Names of the model's numbers, for streams of a kind ("free" is another number for each)."""
    names = TRANSITIONS[model.transition]
    if model.noise == "free":
        names += (FREE_NOISE[kind],)
    if model.tails == "student_t":
        names += ("degrees_of_freedom",)
    return names


def varies_by_stream(model: Model, name: str) -> bool:
    """Whether every stream has a number of its own of this name."""
    return model.pooling == "stream" and name not in SHARED


def is_sequential(model: Model) -> bool:
    """Whether the model only predicts step by step and has no latent path of its own."""
    return model.transition == "l2" or model.tails == "student_t"


def require_fit(model: Model, kind: str) -> None:
    """Refuse a noise that streams of this kind do not have."""
    if model.noise not in NOISES[kind]:
        raise ValueError(
            f"Model needs noise {' or '.join(map(repr, NOISES[kind]))} for {kind} streams, "
            f"got noise={model.noise!r}."
        )
    if model.transition == "static" and model.noise == "none":
        raise ValueError(
            "Model needs a noise or a drift, got transition='static' with noise='none': an optimum "
            "at rest that is seen exactly is a constant."
        )
