"""What the names of the zoo stand for, as facts: read without jax by the commands' help.

`bayesfilt.zoo` adds to each name the function that builds it.
"""

from bayesfilt.catalogue.facts import DECAYS, STATUSES, Facts, OwnNumber
from bayesfilt.catalogue.notes import equation_says, reference
from bayesfilt.catalogue.optimizers import OPTIMIZER_FACTS
from bayesfilt.catalogue.schedules import SCHEDULE_FACTS
from bayesfilt.catalogue.words import NamedNumbers, canonical, name_and_numbers

__all__ = [
    "DECAYS",
    "OPTIMIZER_FACTS",
    "SCHEDULE_FACTS",
    "STATUSES",
    "Facts",
    "NamedNumbers",
    "OwnNumber",
    "canonical",
    "equation_says",
    "name_and_numbers",
    "reference",
]
