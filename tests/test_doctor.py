import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import pytest

from bayesfilt import doctor, provenance

ROOT = Path(__file__).parents[1]
NOT_HERE = ["no_such_device"]
if importlib.util.find_spec("jax_cuda13_plugin") is None:
    NOT_HERE.append("cuda")  # another kind of error inside jax


def found(findings, subject):
    return next(row for row in findings if row.subject == subject)


def test_a_healthy_installation_has_nothing_missing():
    findings = doctor.examine()
    assert [row for row in findings if row.status == "missing"] == []
    assert found(findings, "jax").found == jax.__version__
    assert "cpu" in found(findings, "devices").found or "gpu" in found(findings, "devices").found
    assert found(findings, "float64").found == "available; on"


def test_every_dependency_of_the_project_is_looked_at():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]}
    assert provenance.LIBRARIES.keys() - {"jaxlib"} == declared


@pytest.mark.parametrize(("absent", "status"), [("h5netcdf", "note"), ("optax", "missing")])
def test_an_absent_library_is_named_with_its_purpose_and_remedy(monkeypatch, absent, status):
    real = provenance.versions()
    monkeypatch.setattr(provenance, "versions", lambda: {**real, absent: None})
    row = found(doctor.examine(), absent)
    assert row.status == status
    assert provenance.LIBRARIES[absent] in row.found
    assert row.remedy == f"pip install {absent}"


@pytest.mark.parametrize("device", NOT_HERE)
def test_a_backend_that_is_not_there_is_a_line_and_no_traceback(device):
    script = "from bayesfilt import doctor; print(*doctor.examine()[-1], sep='|')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "JAX_PLATFORMS": device},
        capture_output=True,
        text=True,
        check=True,
    )
    subject, reason, status, remedy = done.stdout.strip().split("|")
    assert (subject, status) == ("devices", "missing")
    assert f"JAX_PLATFORMS asks for {device}" in reason
    assert "JAX_PLATFORMS" in remedy


def test_a_driver_without_its_jax_is_noticed(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices(backend="cpu"))
    monkeypatch.setattr(doctor, "_has_nvidia_driver", lambda: True)
    assert "jax[cuda13]" in found(doctor.examine(), "gpu").remedy
    monkeypatch.setattr(doctor, "_has_nvidia_driver", lambda: False)
    assert "gpu" not in [row.subject for row in doctor.examine()]


def test_a_cache_folder_that_cannot_be_written_is_noticed(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/proc/bayesfilt")
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: str(path) != "/proc")
    row = found(doctor.examine(), "compile cache")
    assert (row.status, "JAX_COMPILATION_CACHE_DIR" in row.remedy) == ("note", True)
