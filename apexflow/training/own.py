"""What users bring of their own: a callable, or its name "package.module:name"."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from typing import Any

from apexflow.errors import ApexflowError

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_name(value: Any) -> bool:
    """Whether a value is a text of the form "package.module:name"."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def name_of(value: Any) -> str:
    """Return the name "package.module:name" of a callable; text as it is."""
    if isinstance(value, str):
        return value
    owner = value if hasattr(value, "__qualname__") else type(value)
    return f"{owner.__module__}:{owner.__qualname__}"


def find(value: Any) -> Any:
    """Return the callable of that name, and a callable as it is.

    Raises `ApexflowError` when there is no such module or name, or it cannot be called.
    """
    if not isinstance(value, str):
        return value
    module, _, path = value.partition(":")
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise ApexflowError(
            f"{value}: {error}; what is to be found again has a name of its own in a module"
        ) from None
    except Exception as error:  # whatever the user's module raises when it is imported
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ApexflowError(
            f"{value}: module {module} cannot be imported ({reason}); is it installed, or in "
            "this folder?"
        ) from None
    if not callable(found):
        raise ApexflowError(f"{value} cannot be called: name a class or a function")
    return found


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a callable's source, "" where it has none to be read.

    It tells that a class was changed between two runs of one training; not what it calls.
    """
    found = find(value)
    owner = found if hasattr(found, "__qualname__") else type(found)
    try:
        return hashlib.sha256(inspect.getsource(owner).encode()).hexdigest()
    except (OSError, TypeError):
        return ""
