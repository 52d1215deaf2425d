"""Which models `bayesfilt infer` is asked for: from words to models, refused before any work."""

from collections.abc import Mapping, Sequence

from bayesfilt.checks import require_one_of
from bayesfilt.infer.state_space import TRANSITIONS, Model, model_named, require_fit

_WORDS = ("noise", "tails", "pooling")


def models_by_name(names: Sequence[str], kind: str, pooling: str) -> dict[str, Model]:
    """Models by what they were called: a transition, with words of its own behind a colon.

    Raises:
        ValueError: a transition or word that is not known (the nearest is offered), a noise that
            streams of this kind do not have, or one model twice.
    """
    models: dict[str, Model] = {}
    for name in names:
        transition, _, rest = name.partition(":")
        words = {"pooling": pooling}
        for part in filter(None, rest.split(",")):
            word, _, value = part.partition("=")
            require_one_of("infer", "a model's word", word, _WORDS)
            words[word] = value
        require_one_of("infer", "models", transition, TRANSITIONS)
        model = model_named(transition, **words)
        require_fit(model, kind)
        if model in models.values():
            raise ValueError(f"infer needs each of --models once, got {name!r} twice.")
        models[name] = model
    return models


def require_comparable(models: Mapping[str, Model], held_out: float) -> None:
    """Refuse now what the comparison, after all the fits, would refuse.

    Raises:
        ValueError: nothing held out, and a model whose weights have numbers of their own.
    """
    own = [name for name, model in models.items() if model.pooling != "layer"]
    if own and not held_out:
        raise ValueError(
            f"infer needs pooling 'layer' with --held-out 0, got pooling='stream' for {own[0]}:"
            " a weight with numbers of its own cannot be left out; hold out steps instead."
        )


def file_name(name: str) -> str:
    """A model's name as a file's: `l2:noise=free` is `l2-noise_free`."""
    return name.replace(":", "-").replace("=", "_").replace(",", "-")
