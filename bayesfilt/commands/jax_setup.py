"""Where and in which precision this process computes; to be settled before the first trace."""

import logging
import os
import sys
import uuid
from pathlib import Path
from typing import Literal

from bayesfilt.commands.console import note
from bayesfilt.cpu_devices import make_cpu_devices, usable_cores
from bayesfilt.provenance import compile_cache_folder

Platform = Literal["auto", "cpu", "gpu"]
Dtype = Literal["float64", "float32"]

_OFF = {"0", "false", "f", "no", "n", "off"}


def prepare_jax(platform: Platform, dtype: Dtype, *, split_cpu: bool = False) -> None:
    """Import jax for `platform` and `dtype`, with a compilation cache.

    On a GPU, matrix products are pinned to full precision: the default rounds their
    inputs to 10 bits, which is more than the gaps that are measured. `split_cpu` makes a device
    of every core, or of fewer (a power of two), so that independent runs can be dealt out to them.

    Raises:
        ValueError: the platform or the precision cannot be had.
    """
    _refuse_forbidden_float64(dtype)
    _choose_platform(platform)
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    if split_cpu:
        cores = len(usable_cores())
        make_cpu_devices(2 ** (cores.bit_length() - 1))
    found = _find_platform(platform)
    if found == "gpu":
        jax.config.update("jax_default_matmul_precision", "highest")
    if dtype == "float64":
        _require_float64(found)
    _keep_compiled_programs(compile_cache_folder())


def _refuse_forbidden_float64(dtype: Dtype) -> None:
    forced = os.environ.get("JAX_ENABLE_X64")
    if dtype == "float64" and forced is not None and forced.lower() in _OFF:
        raise ValueError(
            f"float64 is asked for, but JAX_ENABLE_X64={forced} switches it off:"
            " unset the variable, or pass --dtype float32."
        )


def _choose_platform(platform: Platform) -> None:
    """Tell jax through its own variable, which it reads when it is imported."""
    if platform == "auto":
        return
    # "gpu" leaves the choice among the kinds of GPU to jax, which takes one if there is one;
    # naming them would fail, unclearly, on every kind that is not installed.
    os.environ["JAX_PLATFORMS"] = chosen = "cpu" if platform == "cpu" else ""
    if "jax" in sys.modules:
        import jax

        jax.config.update("jax_platforms", chosen or None)


def _find_platform(platform: Platform) -> str:
    """Start jax's devices and check that they are what was asked for."""
    import jax

    log = logging.getLogger("jax._src.xla_bridge")
    level = log.level
    if platform == "gpu":
        log.setLevel(logging.ERROR)  # that jax falls back to the CPU is our own message here
    try:
        found = jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # JAX_PLATFORMS names what is not there
        reason = str(error).partition(" (")[0] or "no device of that kind"
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(
            f"jax cannot start with JAX_PLATFORMS={asked}: {reason}; unset the variable,"
            " or pass --platform cpu."
        ) from error
    finally:
        log.setLevel(level)
    if platform == "gpu" and found != "gpu":
        raise ValueError(
            f"--platform gpu: jax finds no GPU here, only {found}. For an NVIDIA GPU:"
            " pip install 'jax[cuda13]'. Or pass --platform cpu."
        )
    if platform == "cpu" and found != "cpu":
        raise ValueError(f"--platform cpu: jax already runs on {found} in this process.")
    return found


def _require_float64(found: str) -> None:
    import jax.numpy as jnp

    got = jnp.zeros(()).dtype.name  # by default the widest there is
    if got != "float64":
        raise ValueError(
            f"float64 is asked for and not available on {found} (got {got}):"
            " pass --platform cpu, or --dtype float32."
        )


def _keep_compiled_programs(folder: Path) -> None:
    """Keep compiled programs in `folder`, so that a second run starts sooner; or say why not."""
    import jax

    try:
        # jax runs what it finds there, so nobody else may write into it.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = folder / f".{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        jax.config.update("jax_compilation_cache_dir", None)
        reason = error.strerror or error
        note(f"compiling without a cache: {folder} cannot be written ({reason}).")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # Below this a file costs more than it saves.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
