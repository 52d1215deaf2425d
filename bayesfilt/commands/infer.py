"""`bayesfilt infer`: which state-space model do recorded streams prefer; does its mean shrink?"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from bayesfilt.commands.jax_setup import Platform, prepare_jax

DEFAULT_MODELS = (
    "static", "random_walk", "ornstein_uhlenbeck", "shrinking_walk", "nonzero_mean", "l2",
    "velocity",
)  # fmt: skip
INFERENCE_NAME = "inference"  # folder in the run's, unless told

_LARGEST_SEED = 2**32 - 1
# Of a run that is to be recorded, what nobody says: `--task` alone is enough.
_RECORDING = {
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "batch_size": 64,
    "warm_up_steps": 200,
    "num_steps": 600,
    "weights_per_layer": 16,
    "subset": None,
    "label_noise": 0.0,
}


@dataclasses.dataclass(frozen=True)
class Infer:
    """Fit state-space models to recorded streams; say which one training prefers.

    With --task, train and record the streams first.
    """

    folder: Path  # of a run with recorded streams; with --task, a new one to record into
    # Transitions of the optimum: static, random_walk, ornstein_uhlenbeck (a mean that shrinks:
    # decoupled weight decay), shrinking_walk (the same, but not at rest when the record begins; the
    # verdict rests on it), nonzero_mean (towards another value), l2 (shrinks by the posterior
    # variance), velocity. With words of their own behind a colon: noise=free|matched|none,
    # tails=gaussian|student_t, pooling=layer|stream, as in l2:tails=student_t,noise=free.
    models: tuple[str, ...] = DEFAULT_MODELS
    # Of the streams: measured coordinate optima, or the gradients that training saw.
    kind: Literal["optimum", "gradient"] = "optimum"
    # One number a layer, or a hierarchy: every weight its own around its layer's (slower).
    pooling: Literal["layer", "stream"] = "layer"
    method: Literal["nuts", "svi"] = "nuts"  # svi: a fast approximation, with its own gate
    chains: int = 2
    warmup: int = 500  # steps of each chain that are not kept
    samples: int = 1000  # draws of each chain
    # Share of the steps, the last, that are foretold by a second fit to those before; 0: models
    # are compared by leaving out one weight at a time, with no second fit.
    held_out: float = 0.3
    layers: tuple[str, ...] = ()  # only these; without it, all that were recorded
    seed: int = 0  # of the sampling, and of a recording
    out: Path | None = None  # folder of the results; without it, inference/ in the run's
    force: bool = False  # replace an earlier inference in that folder
    platform: Platform = "cpu"  # chains run side by side on its cores; a GPU is no faster
    # Record first: digits-mlp, digits-cnn, digits-layernorm, bowl, ravine, saddle, two-groups or
    # tracking, trained in float64.
    task: str | None = None
    optimizer: str | None = None  # any of those that `bayesfilt map` lists; without it, adamw
    learning_rate: float | None = None  # AdamW's; without it, 1e-3
    weight_decay: float | None = None  # torch's and optax's; without it, 0.1
    batch_size: int | None = None  # without it, 64
    warm_up_steps: int | None = None  # before the window that is recorded; without it, 200
    num_steps: int | None = None  # of the window; without it, 600
    weights_per_layer: int | None = None  # chosen at random; without it, 16
    subset: int | None = None  # keep so many training examples
    label_noise: float | None = None  # fraction of the training labels made wrong; without it, 0

    def run(self) -> int:
        """Record or load, fit, compare, write, draw; print the verdict."""
        self._check()
        prepare_jax(self.platform, "float64", split_cpu=True)
        from bayesfilt.commands.inference import Order, carry_out
        from bayesfilt.commands.inference_models import models_by_name, require_comparable

        models = models_by_name(self.models, self.kind, self.pooling)
        require_comparable(models, self.held_out)
        if self.task is not None:
            from bayesfilt.commands.record import record_run

            code = record_run(self)
            if code:
                return code
        order = Order(
            run=self.folder,
            out=self.folder / INFERENCE_NAME if self.out is None else self.out,
            force=self.force,
            models=models,
            kind=self.kind,
            method=self.method,
            num_chains=self.chains,
            num_warmup=self.warmup,
            num_samples=self.samples,
            held_out=self.held_out,
            layers=self.layers,
            seed=self.seed,
        )
        return carry_out(order)

    def recording(self) -> dict[str, Any]:
        """What the run is recorded with: what was said, and the rest."""
        said = {name: getattr(self, name) for name in _RECORDING}
        return {
            name: default if said[name] is None else said[name]
            for name, default in _RECORDING.items()
        }

    def _check(self) -> None:
        """Refuse what needs neither jax nor the run to be seen to be wrong."""
        for name, least in (("chains", 1), ("warmup", 0), ("samples", 4)):
            if getattr(self, name) < least:
                raise ValueError(f"infer needs --{name} >= {least}, got {getattr(self, name)}.")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"infer needs 0 <= --held-out < 1, got {self.held_out:g}.")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise ValueError(f"infer needs 0 <= --seed <= {_LARGEST_SEED}, got {self.seed}.")
        if not self.models:
            raise ValueError("infer needs at least one of --models, got none.")
        if self.out is not None and self.out.expanduser().resolve() == self.folder.resolve():
            raise ValueError(
                f"infer needs another --out than the run's own folder, got {self.out}: its record"
                " stands there."
            )
        given = [name for name in _RECORDING if getattr(self, name) is not None]
        if self.task is None and given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ValueError(
                f"infer needs --task with {flags}: they say how a run is to be recorded, and"
                f" {self.folder} is one already."
            )
