"""What every test stands on: float64, no screen, cheap compiling, repeatable random examples."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("MPLBACKEND", "agg")  # before anything imports matplotlib

# Before anything imports jax. Most of what the tests cost is compiling: XLA optimises little, and
# all workers and commands of this run share what is compiled. JAX_DISABLE_MOST_OPTIMIZATIONS=0
# tests what users run; JAX_COMPILATION_CACHE_DIR keeps the programs for the next run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # workers inherit that of the main process
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="bayesfilt-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import hypothesis
import jax
import jaxtyping
import pytest

# Arguments and results are checked against their annotations while tests run: shapes always,
# and an int where a float is asked for counts as one, as it does for a type checker.
jaxtyping.install_import_hook(
    ["bayesfilt.theory", "bayesfilt.filters"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

jax.config.update("jax_enable_x64", True)

# The same examples every time, here and in CI; compiling takes as long as it takes.
hypothesis.settings.register_profile("bayesfilt", derandomize=True, deadline=None)
hypothesis.settings.load_profile("bayesfilt")


# Fixtures that make what asks for them slow: a whole inference, whose parts are tested in
# tests/infer, and two workers of a cluster, which do what one process does.
DEAR = {"place_of_the_run", "two_workers"}


@pytest.hookimpl(tryfirst=True)  # before those that are not wanted are left out
def pytest_collection_modifyitems(items):
    """Mark slow what needs a dear fixture."""
    for item in items:
        if DEAR & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _float64_stays_on():
    """A test that leaves x64 switched off fails here, and not a hundred others after it."""
    yield
    assert jax.config.jax_enable_x64


@pytest.fixture
def compiled_as_users_do():
    """Let XLA optimise, where bits are compared that depend on what it fuses."""
    cheap = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # of what earlier tests of this process compiled cheaply
    yield
    jax.config.update("jax_disable_most_optimizations", cheap)


@pytest.fixture
def float32_only():
    """Run the test as a user does who never switched x64 on."""
    with jax.enable_x64(False):
        yield
