"""What `import bayesfilt` gives, and what it does not cost."""

import inspect
import subprocess
import sys
import types

import pytest

import bayesfilt
from bayesfilt.callable_package import answer_calls_with

FUNCTIONS = {
    "OrnsteinUhlenbeck",
    "adabayes",
    "adabayes_fixed_point",
    "adamw_from_transition",
    "effective_learning_rate",
    "posterior_variance",
    "run_in_chunks",
    "shadow",
    "simulate",
    "transition_from_adamw",
}
FOLDERS = {"compare", "figures", "filters", "infer", "optimizers", "tasks", "theory", "zoo"}
SLOW = ("arviz", "equinox", "h5netcdf", "jax", "matplotlib", "numpy", "numpyro", "optax")
SLOW += ("pandas", "rich", "scipy", "sklearn", "tyro", "xarray")


def python(script: str) -> str:
    """What `script` prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded_by(script: str) -> list[str]:
    return python(f"{script}\nimport sys\nprint(*(sys.modules.keys() & set({SLOW})))").split()


def test_importing_bayesfilt_loads_nothing_that_is_slow():
    assert loaded_by("import bayesfilt; bayesfilt.__version__; dir(bayesfilt)") == []


def test_the_rooms_below_the_figures_load_nothing_that_is_optional():
    script = "from bayesfilt import adabayes, compare, run_in_chunks, simulate, tasks, zoo"
    assert set(loaded_by(script)) <= {"jax", "numpy", "optax", "scipy"}


def test_reading_and_writing_runs_does_not_start_jax():
    script = "import bayesfilt.records, bayesfilt.run_directory, bayesfilt.doctor"
    assert loaded_by(script) == ["numpy"]


def test_the_public_names_are_these():
    assert set(bayesfilt.__all__) == FUNCTIONS | FOLDERS
    assert set(bayesfilt.__all__) <= set(dir(bayesfilt))


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_public_function_can_be_called_and_documents_itself(name):
    function = getattr(bayesfilt, name)
    assert callable(function)
    assert inspect.signature(function).parameters
    assert function.__doc__


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_a_public_folder_is_a_module(name):
    assert isinstance(getattr(bayesfilt, name), types.ModuleType)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'adam'"):
        bayesfilt.adam  # noqa: B018 # pyright: ignore[reportAttributeAccessIssue]


# `bayesfilt.simulate` is a function and a folder, whichever is asked for first.

ORDERS = {
    "function first": "import bayesfilt\nf = bayesfilt.simulate\n"
    "from bayesfilt.simulate import Trajectory",
    "folder first": "from bayesfilt.simulate import Trajectory\nimport bayesfilt",
    "a file of the folder first": "import bayesfilt.simulate.trajectory as t\nimport bayesfilt",
    "from-import": "from bayesfilt import simulate\nimport bayesfilt.simulate.trajectory\n"
    "import bayesfilt\nassert simulate is bayesfilt.simulate",
}


@pytest.mark.parametrize("order", ORDERS)
def test_simulate_is_the_function_in_every_order_of_imports(order):
    script = f"""{ORDERS[order]}
import inspect
from bayesfilt.simulate.trajectory import simulate as wanted
assert callable(bayesfilt.simulate), bayesfilt.simulate
assert inspect.signature(bayesfilt.simulate) == inspect.signature(wanted)
assert bayesfilt.simulate.trajectory.simulate is wanted
print("the function")
"""
    assert python(script) == "the function"


@pytest.fixture
def package(monkeypatch):
    """An imported package named `folder`, which may be called as `power`."""

    def power(base, exponent=2):
        return base**exponent

    module = types.ModuleType("folder")
    monkeypatch.setitem(sys.modules, "folder", module)
    answer_calls_with("folder", power)
    return module


def test_a_callable_package_hands_arguments_on(package):
    assert package(3) == 9
    assert package(2, exponent=3) == 8
    assert inspect.ismodule(package)


def test_a_callable_package_goes_through_jit_with_static_names(package):
    import jax

    compiled = jax.jit(package, static_argnames="exponent")
    assert compiled(3.0, exponent=2) == 9
    assert jax.vmap(package)(jax.numpy.arange(3)).tolist() == [0, 1, 4]
