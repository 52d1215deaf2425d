"""What every test stands on: float64, no screen, repeatable random examples."""

import os

os.environ.setdefault("MPLBACKEND", "agg")  # before anything imports matplotlib

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


@pytest.fixture(autouse=True)
def _float64_stays_on():
    """A test that leaves x64 switched off fails here, and not a hundred others after it."""
    yield
    assert jax.config.jax_enable_x64


@pytest.fixture
def float32_only():
    """Run the test as a user does who never switched x64 on."""
    with jax.enable_x64(False):
        yield
