"""Eager checks of arguments: what was wanted, what came.

They look at concrete numbers only. A traced number (under `jit`, `vmap` or
`optax.inject_hyperparams`) and a schedule pass unseen, because nothing is known of their
values yet; inside a compiled run a bad number becomes a diverged run, never an exception.
"""

import difflib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jax.core import Tracer


def concrete_number(value: Any) -> float | None:
    """The number behind `value`, or None where it is traced, a schedule or not a scalar."""
    if isinstance(value, Tracer) or callable(value):
        return None
    array = np.asarray(value)
    return float(array) if array.ndim == 0 and array.dtype.kind in "biuf" else None


def require_number(owner: str, name: str, value: Any) -> None:
    """Refuse what is neither a real number, nor traced, nor a schedule."""
    if isinstance(value, Tracer) or callable(value):
        return
    if value is None or np.asarray(value).dtype.kind not in "iuf":
        raise ValueError(f"{owner} needs a real number for {name}, got {name}={value!r}.")


def require_finite(owner: str, name: str, value: Any) -> None:
    """Refuse a concrete number that is infinite or NaN."""
    require_number(owner, name, value)
    number = concrete_number(value)
    if number is not None and not math.isfinite(number):
        raise ValueError(f"{owner} needs a finite {name}, got {name}={number:g}.")


def require_positive(owner: str, name: str, value: Any, *, infinite: bool = False) -> None:
    """Refuse a concrete number that is not above zero; `infinite` says whether inf is legal."""
    require_number(owner, name, value)
    number = concrete_number(value)
    if number is None or (number > 0 and (infinite or math.isfinite(number))):
        return
    wanted = f"{name} > 0" if infinite else f"a finite {name} > 0"
    raise ValueError(f"{owner} needs {wanted}, got {name}={number:g}.")


def require_non_negative(owner: str, name: str, value: Any) -> None:
    """Refuse a concrete number below zero, or not finite."""
    require_number(owner, name, value)
    number = concrete_number(value)
    if number is not None and not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"{owner} needs a finite {name} >= 0, got {name}={number:g}.")


def require_fraction(owner: str, name: str, value: Any) -> None:
    """Refuse a concrete number outside [0, 1): a running mean's memory, a shrink."""
    require_number(owner, name, value)
    number = concrete_number(value)
    if number is not None and not 0 <= number < 1:
        raise ValueError(f"{owner} needs 0 <= {name} < 1, got {name}={number:g}.")


def require_at_least(owner: str, name: str, value: Any, least: int) -> None:
    """Refuse a concrete number below `least`, or one that is not whole."""
    require_number(owner, name, value)
    number = concrete_number(value)
    if number is not None and not (number >= least and math.isfinite(number) and number % 1 == 0):
        raise ValueError(f"{owner} needs a whole {name} >= {least}, got {name}={number:g}.")


def require_semidefinite(
    owner: str,
    name: str,
    value: Any,
    *,
    dim: int | None = None,
    definite: bool = False,
    finite: bool = True,
) -> None:
    """Refuse what is no square matrix and, if concrete, not symmetric positive (semi)definite.

    Axes before the last two make a stack of matrices. Rounding is allowed for, in the units of
    each row's own diagonal: a matrix may hold 1e-12 beside 1e12.

    Args:
        owner: the function that asks.
        name: its argument's name.
        value: [..., dim, dim], of any number type.
        dim: how many rows are wanted; None for any number.
        definite: whether a singular matrix is refused too.
        finite: whether NaN and infinity are refused; else they pass, as a failure that will show.
    """
    shape = np.shape(value)
    wanted = "a square matrix" if dim is None else f"a {dim} x {dim} matrix"
    if len(shape) < 2 or shape[-1] != shape[-2] or dim not in (None, shape[-1]):
        raise ValueError(f"{owner} needs {wanted} for {name}, got shape {shape}.")
    if isinstance(value, Tracer):
        return
    matrix = np.asarray(value)
    if matrix.dtype.kind not in "iuf" and str(matrix.dtype) != "bfloat16":
        raise ValueError(f"{owner} needs real numbers for {name}, got {matrix.dtype}.")
    epsilon = 2.0**-23 if matrix.dtype.itemsize <= 4 else 2.0**-52
    matrix, rounding = matrix.astype(float), 16 * max(shape[-1], 1) * epsilon
    if not np.isfinite(matrix).all():
        if not finite:
            return
        raise ValueError(f"{owner} needs a finite {name}, got NaN or inf in it.")
    if matrix.size == 0:
        return
    diagonal = np.abs(np.diagonal(matrix, axis1=-2, axis2=-1))
    unit = np.sqrt(np.where(diagonal == 0, 1, diagonal))
    scaled = matrix / unit[..., None] / unit[..., None, :]
    if (np.abs(scaled - np.swapaxes(scaled, -1, -2)) > rounding).any():
        gap = np.abs(matrix - np.swapaxes(matrix, -1, -2)).max()
        raise ValueError(f"{owner} needs a symmetric {name}, got {gap:g} between mirrored entries.")
    lowest = np.linalg.eigvalsh(scaled)[..., 0]
    if (lowest < -rounding).any() or (definite and (lowest <= rounding).any()):
        kind = "definite" if definite else "semidefinite"
        least = np.linalg.eigvalsh(matrix)[..., 0].min()
        raise ValueError(
            f"{owner} needs a positive {kind} {name}, got a smallest eigenvalue of {least:g}."
        )


def require_one_of(owner: str, name: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a word that is not among `choices`; the nearest ones are offered."""
    known = list(choices)
    if value in known:
        return
    near = " or ".join(map(repr, difflib.get_close_matches(str(value), known, n=3)))
    hint = f" Did you mean {near}?" if near else ""
    raise ValueError(f"{owner} knows {name} {', '.join(known)}; got {value!r}.{hint}")
