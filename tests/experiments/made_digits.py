"""A small task of made-up images, and a verdict found by its words."""

from collections.abc import Sequence

import numpy as np

from bayesfilt.tasks import Supervised, supervised_task
from bayesfilt.tasks.data import Dataset
from bayesfilt.tasks.networks import Mlp
from experiments.contract import Verdict


def made_digits(shape: tuple[int, ...] = (4, 4)) -> Supervised:
    """Twenty random images, ten classes, the same for training and test."""
    random = np.random.default_rng(0)
    inputs, labels = random.random((20, *shape)), np.arange(20) % 10
    network = Mlp((int(np.prod(shape)), 10))
    return supervised_task(Dataset(inputs, labels, inputs, labels), network, batch_size=4)


def holds(verdicts: Sequence[Verdict], words: str) -> bool | None:
    """Whether the one verdict whose claim has these words holds."""
    (found,) = [each.holds for each in verdicts if words in each.claim]
    return found
