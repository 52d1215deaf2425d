"""Are Adam and AdamW Bayesian filters? Write the theory down, run it, compare it.

Names load on first use (PEP 562), so `import bayesfilt` and `bayesfilt --help` do not wait
for jax. `bayesfilt.simulate` is a folder and the function it is named after: both
`bayesfilt.simulate(key, ...)` and `from bayesfilt.simulate import Trajectory` work.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesfilt import compare, figures, filters, infer, optimizers, tasks, theory
    from bayesfilt.optimizers import (
        adabayes,
        adabayes_fixed_point,
        effective_learning_rate,
        posterior_variance,
        zoo,
    )
    from bayesfilt.simulate import run_in_chunks, shadow, simulate
    from bayesfilt.theory import (
        OrnsteinUhlenbeck,
        adamw_from_transition,
        transition_from_adamw,
    )

__version__ = "0.1.0"

__all__ = [
    "OrnsteinUhlenbeck",
    "adabayes",
    "adabayes_fixed_point",
    "adamw_from_transition",
    "compare",
    "effective_learning_rate",
    "figures",
    "filters",
    "infer",
    "optimizers",
    "posterior_variance",
    "run_in_chunks",
    "shadow",
    "simulate",
    "tasks",
    "theory",
    "transition_from_adamw",
    "zoo",
]

_MODULES = {
    "compare": "bayesfilt.compare",
    "figures": "bayesfilt.figures",
    "filters": "bayesfilt.filters",
    "infer": "bayesfilt.infer",
    "optimizers": "bayesfilt.optimizers",
    "simulate": "bayesfilt.simulate",
    "tasks": "bayesfilt.tasks",
    "theory": "bayesfilt.theory",
    "zoo": "bayesfilt.optimizers.zoo",
}

_HOME_OF = {
    "OrnsteinUhlenbeck": "bayesfilt.theory",
    "adabayes": "bayesfilt.optimizers",
    "adabayes_fixed_point": "bayesfilt.optimizers",
    "adamw_from_transition": "bayesfilt.theory",
    "effective_learning_rate": "bayesfilt.optimizers",
    "posterior_variance": "bayesfilt.optimizers",
    "run_in_chunks": "bayesfilt.simulate",
    "shadow": "bayesfilt.simulate",
    "transition_from_adamw": "bayesfilt.theory",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = import_module(_MODULES[name])
    elif name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
