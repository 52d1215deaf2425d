"""`bayesfilt compare`: one task, AdamW leading, followers beside it."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from bayesfilt.catalogue import OPTIMIZER_FACTS, SCHEDULE_FACTS
from bayesfilt.commands.help_text import any_of, helped
from bayesfilt.commands.jax_setup import Dtype, Platform, prepare_jax

if TYPE_CHECKING:
    from bayesfilt.optimizers.zoo import Setting
    from bayesfilt.tasks import Task

DEFAULT_FOLLOWERS = ("adabayes_fixed_point", "adabayes", "adam_large_eps")

_RECORDS_IN_A_RUN = 200
_LARGEST_SEED = 2**32 - 1


@helped(
    followers=any_of(OPTIMIZER_FACTS),
    schedule="Of the learning rate. "
    + any_of(facts for facts in SCHEDULE_FACTS if facts.status != "none"),
)
@dataclasses.dataclass(frozen=True)
class Compare:
    """Run followers beside the real AdamW, update by update and free-running; draw it all."""

    out: Path  # folder of the run: record, manifest, summary, figures
    # digits-mlp, digits-cnn, digits-layernorm; or, with known optima, bowl, saddle, ravine,
    # two-groups, tracking.
    task: str = "digits-mlp"
    followers: tuple[str, ...] = DEFAULT_FOLLOWERS
    learning_rate: float = 1e-3  # AdamW's; the filters' settings follow by the dictionary
    weight_decay: float = 0.1  # torch's and optax's: the shrink per step is this times the rate
    batch_size: int = 64
    num_steps: int = 2000
    schedule: str = "constant"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8  # AdamW's
    seed: int = 0  # of the first weights and the minibatches; the data do not depend on it
    dtype: Dtype = "float64"
    record_every: int | None = None  # steps; without it, about 200 records in the run
    # Train the task's network on these data: an .npz, or a folder of MNIST-style IDX files or of
    # CIFAR-10 binary batches.
    data: Path | None = None
    subset: int | None = None  # keep so many training examples
    label_noise: float = 0.0  # fraction of the training examples given a wrong label
    platform: Platform = "auto"
    force: bool = False  # replace an earlier run in the folder

    def run(self) -> int:
        """Train, compare, write and draw."""
        prepare_jax(self.platform, self.dtype)
        from bayesfilt.commands.study import Order, Study, carry_out

        self._check()
        study = Study(
            task_name=self.task,
            task=self._build_task(),
            setting=self._setting(),
            followers=self.followers,
            record_every=self._record_every(),
        )
        order = Order(
            out=self.out,
            force=self.force,
            config=self,
            seed=self.seed,
            dtype=self.dtype,
            studies=(study,),
        )
        return carry_out(order)

    def _check(self) -> None:
        from bayesfilt.checks import require_at_least

        if not 0 <= self.seed <= _LARGEST_SEED:
            raise ValueError(f"compare needs 0 <= --seed <= {_LARGEST_SEED}, got {self.seed}.")
        if self.record_every is not None:
            require_at_least("compare", "record_every", self.record_every, 1)

    def _setting(self) -> "Setting":
        from bayesfilt.optimizers.zoo import Setting

        return Setting(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            num_steps=self.num_steps,
            schedule=self.schedule,
            b1=self.b1,
            b2=self.b2,
            eps=self.eps,
        )

    def _record_every(self) -> int:
        return self.record_every or max(1, self.num_steps // _RECORDS_IN_A_RUN)

    def _build_task(self) -> "Task":
        import jax

        from bayesfilt import tasks

        if self.data is None:
            return tasks.make_task(
                self.task,
                batch_size=self.batch_size,
                dtype=self.dtype,
                subset=self.subset,
                label_noise=self.label_noise,
                num_steps=self.num_steps,
            )
        network = self.task.removeprefix("digits-")
        if network not in tasks.NETWORK_NAMES:
            known = ", ".join(f"digits-{name}" for name in tasks.NETWORK_NAMES)
            raise ValueError(f"compare trains --data with a network ({known}), got {self.task!r}.")
        dataset = tasks.load_dataset(self.data)
        subset_key, label_key = jax.random.split(jax.random.key(0))
        if self.subset is not None:
            dataset = tasks.take_subset(subset_key, dataset, self.subset)
        if self.label_noise:
            dataset = tasks.with_label_noise(label_key, dataset, self.label_noise)
        return tasks.supervised_task(dataset, network, batch_size=self.batch_size, dtype=self.dtype)
