"""An import goes down, or sideways, never up; each floor imports only its own libraries."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "bayesfilt"

FLOOR_OF = {
    "__init__": 0,
    "atomic_files": 0,
    "callable_package": 0,
    "catalogue": 0,
    "checks": 0,
    "cpu_devices": 0,
    "custom_types": 0,
    "doctor": 0,
    "provenance": 0,
    "records": 0,
    "run_directory": 0,
    "theory": 1,
    "filters": 2,
    "optimizers": 3,
    "tasks": 4,
    "simulate": 5,
    "compare": 6,
    "infer": 7,
    "figures": 8,
    "cli": 9,
    "commands": 9,
    "report": 9,
    "__main__": 9,
}

ARRAYS = {"jax", "jaxtyping"}
# What a room may import when it is imported itself ...
AT_ONCE = {
    "checks": ARRAYS | {"numpy"},
    "custom_types": ARRAYS,
    "records": {"numpy"},
    "theory": ARRAYS,
    "filters": ARRAYS,
    "filters/reference": {"numpy"},
    "optimizers": ARRAYS | {"optax"},
    "tasks": ARRAYS | {"numpy", "optax"},
    "simulate": ARRAYS | {"numpy", "optax"},
    "compare": ARRAYS | {"numpy", "optax"},
    "infer": ARRAYS | {"numpy", "optax", "numpyro", "arviz"},
    "figures": {"numpy", "matplotlib"},
    "commands/inference": {"jax"},
    "commands/inference_tables": {"numpy"},
    "commands/summary": {"numpy"},
    "commands/sweep_analysis": {"numpy"},
    "commands/sweep_tables": {"numpy"},
}
# ... and what else only inside a function that needs it, because it costs seconds or is optional.
ON_FIRST_USE = {
    "cpu_devices": {"jax"},
    "doctor": {"jax"},
    "provenance": {"jax"},
    "atomic_files": {"h5py"},
    "records": {"h5netcdf", "xarray"},
    "simulate": {"distributed", "xarray"},
    "tasks": {"equinox", "sklearn"},
    "infer": {"arviz_stats", "xarray"},  # arviz keeps its bands of uniformity in there
    # ArviZ draws what it diagnoses (chains, posteriors): from its own trees, and by itself.
    "figures": {"arviz", "xarray"},
    "cli": {"tyro"},
    "commands": {"jax", "rich", "xarray"},
}


class Import(NamedTuple):
    module: str
    lazy: bool  # inside a function, or for the type checker alone


def imports_of(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import in `source`, the code of `module`, by its absolute name."""
    package = module.split(".") if is_package else module.split(".")[:-1]

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from bayesfilt import theory` names a folder in the second half.
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from (Import(name, lazy) for name in ([base] if "." in base else names))
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        checker = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy or function or checker)

    yield from visit(ast.parse(source), False)


def room_of(module: str) -> str:
    """The file or folder of floor plan that `bayesfilt.theory.riccati` belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def complaints(source: str, module: str, *, is_package: bool = False) -> list[str]:
    room = room_of(module)
    file = "/".join(module.split(".")[1:]) or "__init__"
    if room not in FLOOR_OF:
        return [f"{module} has no floor: give it one in FLOOR_OF"]
    at_once = AT_ONCE.get(room, set()) | AT_ONCE.get(file, set())
    lazily = at_once | ON_FIRST_USE.get(room, set())
    found = []
    for name, lazy in imports_of(source, module, is_package=is_package):
        library = name.split(".")[0]
        if library == "bayesfilt":
            floor = FLOOR_OF.get(room_of(name), 0)  # a public name: bayesfilt.__version__
            if floor > FLOOR_OF[room] and not (room == "__init__" and lazy):
                found.append(f"{module} (floor {FLOOR_OF[room]}) imports {name} (floor {floor})")
        elif library not in sys.stdlib_module_names and library not in at_once:
            if library not in lazily:
                found.append(f"{module} must not import {library}")
            elif not lazy:
                found.append(f"{module} must import {library} on first use, inside a function")
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_keeps_to_its_floor(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    assert complaints(path.read_text(encoding="utf-8"), module, is_package=is_package) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("theory.riccati", "from bayesfilt.filters import Belief", "floor 1.*floor 2"),
        ("theory.riccati", "from bayesfilt import filters", "floor 1.*floor 2"),
        ("theory.riccati", "import bayesfilt.filters.belief as b", "floor 1.*floor 2"),
        ("theory.riccati", "from ..filters.belief import Belief", "floor 1.*floor 2"),
        ("theory.riccati", "from .. import filters", "floor 1.*floor 2"),
        ("theory.riccati", "def f():\n    import bayesfilt.cli", "floor 1.*floor 9"),
        ("records", "from .simulate import simulate", "floor 0.*floor 5"),
        ("theory.riccati", "import numpy as np", "must not import numpy"),
        ("theory.riccati", "def f():\n    import numpy", "must not import numpy"),
        ("filters.diagonal", "from numpy.linalg import inv", "must not import numpy"),
        ("figures.panels", "import jax.numpy as jnp", "must not import jax"),
        ("tasks.networks", "import equinox as eqx", "equinox on first use"),
        ("tasks.data", "class A:\n    import sklearn.datasets", "sklearn on first use"),
        ("tasks.data", "try:\n    import sklearn\nexcept ImportError:\n    pass", "first use"),
        ("records", "import xarray", "xarray on first use"),
        ("cli", "import tyro", "tyro on first use"),
        ("utils.things", "import os", "has no floor"),
    ],
)
def test_a_wrong_import_is_seen(module, source, complaint):
    (found,) = complaints(source, f"bayesfilt.{module}")
    assert pytest.RaisesExc(AssertionError, match=complaint).matches(AssertionError(found))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("filters.diagonal", "from bayesfilt.theory import retention\nfrom . import belief"),
        ("filters.reference", "import numpy as np"),
        ("tasks.networks", "def make():\n    import equinox as eqx"),
        ("tasks.networks", "if TYPE_CHECKING:\n    import equinox as eqx"),
        ("cli", "def main():\n    import tyro\n    from bayesfilt import figures"),
        ("provenance", "import bayesfilt, os, subprocess"),
    ],
)
def test_a_right_import_passes(module, source):
    assert complaints(source, f"bayesfilt.{module}") == []
