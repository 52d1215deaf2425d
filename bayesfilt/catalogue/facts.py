"""One row of the catalogue: what a name means, and how exact that meaning is."""

from typing import NamedTuple

# How much of the filter is in it.
STATUSES = {
    "exact": "equal to the filter, step by step",
    "limit": "the filter where one of its numbers goes to an end",
    "first order": "the filter up to first order in the gain or in the decay per step",
    "approximate": "the filter's form with numbers that no filter has, or a bounded gap from it",
    "none": "no filter does this",
}

# What a weight without a gradient loses in a step, at the schedule's factor s.
DECAYS = {
    "none": "nothing",
    "lr_scaled": "the fraction s learning_rate weight_decay (torch, optax)",
    "paper": "the fraction s learning_rate weight_decay; its own number is the shrink at s = 1",
    "filter": "the fraction s^2 learning_rate weight_decay: the drift's own, sigma^2 fixed",
    "exact": "the fraction 1 - exp(-d), with d the filter's s^2 learning_rate weight_decay",
    "l2": "no fixed fraction: weight_decay * weight is added to its gradient",
}


class OwnNumber(NamedTuple):
    """A number that one optimizer or schedule has beyond the shared setting."""

    name: str
    default: float | None  # None: worked out from the setting
    meaning: str


class Facts(NamedTuple):
    """All that can be said of a name without running it."""

    name: str
    reading: str  # as a filter, in one sentence
    status: str  # of that reading, one of `STATUSES`
    reason: str  # for the status, in one sentence
    sources: tuple[str, ...]  # keys of paper_notes/references.bib
    tags: tuple[str, ...]  # rows of paper_notes/equations.md
    numbers: tuple[OwnNumber, ...] = ()
    decay: str = "none"  # an optimizer's, one of `DECAYS`

    @property
    def defaults(self) -> dict[str, float | None]:
        """Its own numbers."""
        return {number.name: number.default for number in self.numbers}
