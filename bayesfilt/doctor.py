"""What `bayesfilt doctor` has to say, as rows; printing them is the command line's work."""

import os
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

from bayesfilt import provenance

Status = Literal["ok", "note", "missing"]

# Without these nothing runs at all; the rest cost one feature each.
ESSENTIAL = ("jax", "jaxlib", "numpy", "jaxtyping", "optax")


class Finding(NamedTuple):
    """One line: what was looked at, what was found, and what to do about it, if anything."""

    subject: str
    found: str
    status: Status
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at the installation; slow the first time, because it starts jax.

    It stops where nothing further can work: at an absent jax, at a device that is not there.
    """
    findings = [*_code(), *_libraries()]
    for look in (_devices, _float64, _compile_cache):
        if any(row.status == "missing" for row in findings):
            break
        findings += look()
    return findings


def _code() -> list[Finding]:
    found = provenance.versions()
    code = provenance.code_state()
    commit = "no checkout" if code.commit is None else f"commit {code.commit[:10]}"
    changed = ", with uncommitted changes" if code.dirty else ""
    return [
        Finding("bayesfilt", f"{found['bayesfilt']} ({commit}{changed})", "ok"),
        Finding("python", str(found["python"]), "ok"),
    ]


def _libraries() -> list[Finding]:
    found = provenance.versions()
    rows = []
    for name, purpose in provenance.LIBRARIES.items():
        if found[name] is not None:
            rows.append(Finding(name, str(found[name]), "ok"))
        else:
            status = "missing" if name in ESSENTIAL else "note"
            rows.append(Finding(name, f"absent; for {purpose}", status, f"pip install {name}"))
    return rows


def _devices() -> list[Finding]:
    import jax

    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # jax asserts where CUDA's plugin is absent
        asked = os.environ.get("JAX_PLATFORMS", "nothing in particular")
        reason = [
            f"jax starts no device (JAX_PLATFORMS asks for {asked})",
            *str(error).splitlines(),
        ]
        remedy = "unset JAX_PLATFORMS, or set it to cpu"
        return [Finding("devices", ": ".join(reason[:2]), "missing", remedy)]
    kinds = ", ".join(f"{each.platform}:{each.id} ({each.device_kind})" for each in devices)
    rows = [Finding("devices", kinds, "ok")]
    if all(each.platform == "cpu" for each in devices) and _has_nvidia_driver():
        remedy = "pip install 'jax[cuda13]' (the extra bayesfilt[cuda]), for a driver >= 580"
        rows.append(Finding("gpu", "an NVIDIA driver, but jax sees only the CPU", "note", remedy))
    return rows


def _has_nvidia_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()


def _float64() -> list[Finding]:
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        dtype = jnp.zeros((), dtype="float64").dtype.name
    if dtype != "float64":
        remedy = "compare on the CPU: --platform cpu"
        return [Finding("float64", f"not available here (got {dtype})", "missing", remedy)]
    now = "on" if jax.config.read("jax_enable_x64") else "off until a command switches it on"
    return [Finding("float64", f"available; {now}", "ok")]


def _compile_cache() -> list[Finding]:
    folder = provenance.compile_cache_folder()
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(nearest, os.W_OK):
        remedy = "set JAX_COMPILATION_CACHE_DIR to a folder you can write"
        return [Finding("compile cache", f"{folder} is not writable", "note", remedy)]
    return [Finding("compile cache", str(folder), "ok")]
