"""What is trained: surfaces with known curvature, the matched world, digits, your own.

Importing this loads neither scikit-learn nor equinox; they come with the first digits and
the first network.
"""

from bayesfilt.tasks.bowls import (
    Bowl,
    Ravine,
    Saddle,
    TwoGroups,
    bowl_task,
    ravine_task,
    saddle_task,
    two_groups_task,
)
from bayesfilt.tasks.data import (
    Dataset,
    dataset_from_arrays,
    load_dataset,
    load_digits,
    load_npz,
    take_subset,
    with_label_noise,
)
from bayesfilt.tasks.named import TASK_NAMES, make_task
from bayesfilt.tasks.networks import (
    NETWORK_NAMES,
    Cnn,
    LayerNormMlp,
    Mlp,
    Network,
    network_for,
)
from bayesfilt.tasks.supervised import (
    Custom,
    Examples,
    Supervised,
    custom_task,
    supervised_task,
)
from bayesfilt.tasks.task import Batch, Task
from bayesfilt.tasks.tracking import Tracking, World, tracking_task

__all__ = [
    "NETWORK_NAMES",
    "TASK_NAMES",
    "Batch",
    "Bowl",
    "Cnn",
    "Custom",
    "Dataset",
    "Examples",
    "LayerNormMlp",
    "Mlp",
    "Network",
    "Ravine",
    "Saddle",
    "Supervised",
    "Task",
    "Tracking",
    "TwoGroups",
    "World",
    "bowl_task",
    "custom_task",
    "dataset_from_arrays",
    "load_dataset",
    "load_digits",
    "load_npz",
    "make_task",
    "network_for",
    "ravine_task",
    "saddle_task",
    "supervised_task",
    "take_subset",
    "tracking_task",
    "two_groups_task",
    "with_label_noise",
]
