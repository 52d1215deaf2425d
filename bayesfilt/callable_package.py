"""A folder that may be called by the name of the one function it is about.

`bayesfilt.simulate` is promised as a function and is a folder too. Importing anything from
the folder makes Python set the attribute `bayesfilt.simulate` to the module, whatever stood
there. So the module itself answers the call, and the order of imports does not matter.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A module that hands a call on to the function it wraps."""

    # `inspect.signature` follows this name, and with it `jax.jit(..., static_argnames=...)`.
    __wrapped__: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped function."""
        return self.__wrapped__(*args, **kwargs)


def answer_calls_with(package_name: str, function: Callable[..., Any]) -> None:
    """Let the imported package `package_name` be called as `function`.

    To be called at the end of the package's `__init__.py`, with `__name__`.
    """
    package = sys.modules[package_name]
    package.__class__ = CallablePackage
    vars(package)["__wrapped__"] = function
