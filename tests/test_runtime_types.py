import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from bayesfilt.theory import OrnsteinUhlenbeck, fixed_point_variance, retention


def test_annotations_are_checked_while_tests_run():
    with pytest.raises(jaxtyping.TypeCheckError):
        fixed_point_variance(jnp.ones(3, dtype=int), 1e-3, 1.0)
    with pytest.raises(jaxtyping.TypeCheckError):
        fixed_point_variance(jnp.ones(3), "1e-3", 1.0)  # pyright: ignore[reportArgumentType]


def test_whole_numbers_traced_scalars_and_named_tuples_pass_the_check():
    assert retention(1, 2) == pytest.approx(retention(1.0, 2.0))
    traced = jax.jit(jax.vmap(lambda eta: fixed_point_variance(jnp.ones(3), eta, 1.0)))
    assert traced(jnp.ones(4)).shape == (4, 3)
    transition = OrnsteinUhlenbeck(drift_scale=jnp.ones(2), stationary_variance=jnp.ones(2))
    assert jax.vmap(lambda each: retention(*each))(transition).shape == (2,)
