"""`bayesfilt demo`: the main job at its standard setting."""

import dataclasses
from pathlib import Path
from typing import Any

from bayesfilt.commands.compare import DEFAULT_FOLLOWERS
from bayesfilt.commands.jax_setup import Platform, prepare_jax

# One setting for both networks. The cosine schedule sets the three conventions for weight
# decay apart: their shrinks differ wherever the learning rate is not at its base.
STANDARD = {
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "batch_size": 64,
    "schedule": "cosine",
}
NUM_STEPS = {"digits-mlp": 1000, "digits-cnn": 300}
RECORD_EVERY = 10
SEED = 0


@dataclasses.dataclass(frozen=True)
class Demo:
    """Train an MLP and a CNN on real digits with AdamW, the filters beside it; draw it all."""

    out: Path = Path("runs/demo")  # folder of the run: record, manifest, summary, figures
    platform: Platform = "auto"
    force: bool = False  # replace an earlier run in the folder

    def run(self) -> int:
        """Train, compare, write and draw."""
        prepare_jax(self.platform, "float64")
        from bayesfilt.commands.study import Order, carry_out

        order = Order(
            out=self.out,
            force=self.force,
            config={**dataclasses.asdict(self), **self.standard()},
            seed=SEED,
            dtype="float64",
            studies=[self._study(name) for name in NUM_STEPS],
        )
        return carry_out(order)

    def standard(self) -> dict[str, Any]:
        """Every number that can change the result."""
        return {
            **STANDARD,
            "num_steps": NUM_STEPS,
            "followers": DEFAULT_FOLLOWERS,
            "record_every": RECORD_EVERY,
            "seed": SEED,
        }

    def _study(self, name: str):
        from bayesfilt.commands.study import Study
        from bayesfilt.optimizers.zoo import Setting
        from bayesfilt.tasks import make_task

        return Study(
            task_name=name,
            task=make_task(name, batch_size=STANDARD["batch_size"], dtype="float64"),
            setting=Setting(**STANDARD, num_steps=NUM_STEPS[name]),
            followers=DEFAULT_FOLLOWERS,
            record_every=RECORD_EVERY,
        )
