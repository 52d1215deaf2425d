"""The cores that this process may use, and as many devices of jax made of them."""

import contextlib
import os


def usable_cores() -> tuple[int, ...]:
    """Numbers of the cores; where the system does not say which, all there are."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return tuple(sorted(affinity(0))) if affinity else tuple(range(os.cpu_count() or 1))


def make_cpu_devices(count: int) -> None:
    """Have jax see `count` CPU devices; what the user has set, or jax has begun with, stays."""
    import jax

    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if os.environ.get("JAX_NUM_CPU_DEVICES"):
        return
    with contextlib.suppress(RuntimeError):  # jax computes already: its devices are settled
        jax.config.update("jax_num_cpu_devices", count)
