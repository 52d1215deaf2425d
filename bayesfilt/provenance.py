"""Where numbers come from: versions, commit, device, flags.

Everything here is looked up when asked for, and answers None, or an empty dict, rather than fail:
a run must not be lost because git is missing.
"""

import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import bayesfilt

# What each library is for. All but jaxlib (pulled by jax) stand in pyproject.toml.
LIBRARIES = {
    "jax": "everything",
    "jaxlib": "everything",
    "numpy": "everything",
    "jaxtyping": "everything",
    "optax": "the optimizers",
    "equinox": "the networks",
    "scikit-learn": "the digits",
    "xarray": "record.nc (without it: record.npz)",
    "h5netcdf": "record.nc (without it: record.npz)",
    "h5py": "record.nc (without it: record.npz)",
    "matplotlib": "the figures",
    "tyro": "the command line",
    "rich": "tables and progress",
    "numpyro": "inference",
    "arviz": "diagnostics of inference",
}

_TELLING_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "JAX_PLATFORMS",
    "OMP_NUM_THREADS",
    "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)
# Of jax: what can change a number.
TELLING_SETTINGS = (
    "jax_default_matmul_precision",
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_threefry_partitionable",
)


class CodeState(NamedTuple):
    """The commit bayesfilt ran from, and whether tracked or new files differed from it."""

    commit: str | None
    dirty: bool | None


def versions() -> dict[str, str | None]:
    """Version of Python, of bayesfilt and of each library; None where one is absent."""
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "bayesfilt": bayesfilt.__version__,
    }
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def code_state() -> CodeState:
    """The state of bayesfilt's own checkout; None, None where it was installed without one.

    A package installed into somebody's project lies inside *their* checkout: the commit
    counts only where git tracks this very file.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return CodeState(commit=None, dirty=None)
    changes = _git(here.parent, "status", "--porcelain")
    return CodeState(
        commit=_git(here.parent, "rev-parse", "HEAD"),
        dirty=None if changes is None else bool(changes),
    )


def device() -> dict[str, Any]:
    """Platform ("cpu", "gpu"), kind and number of the devices jax computes on."""
    import jax

    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu_count": os.cpu_count(),
    }


def flags() -> dict[str, Any]:
    """The settings of jax and the environment variables that can change a number."""
    import jax

    settings = {name: getattr(jax.config, name, None) for name in TELLING_SETTINGS}
    environment = {name: os.environ[name] for name in _TELLING_VARIABLES if name in os.environ}
    return {**settings, **environment}


def here_and_now() -> dict[str, Any]:
    """All of it, with the time and the command: the part of a manifest that any result needs."""
    code = code_state()
    return {
        "written_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions(),
        "commit": code.commit,
        "dirty": code.dirty,
        "device": device(),
        "flags": flags(),
    }


def compile_cache_folder() -> Path:
    """Where compiled programs are kept between runs: in the user's own cache folder.

    `JAX_COMPILATION_CACHE_DIR`, jax's own variable, comes first.
    """
    if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(chosen)
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        caches = home / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return caches / "bayesfilt" / "jax"


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says, or None where it is missing, slow or refuses."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=True,
            encoding="utf-8",
            errors="replace",
            # Looking must not touch the index of a checkout somebody else is working in.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
