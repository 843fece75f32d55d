"""The kinds of failure that apexflow reports to people."""

from __future__ import annotations


class ApexflowError(Exception):
    """Something cannot be done: one line that names the file, the rule and the remedy."""


class ClipError(ApexflowError):
    """One clip cannot be used; a run records it with this reason and goes on."""


class NotStoredError(ApexflowError):
    """A store does not hold what was asked of it, because its recipe did not make it."""


class DamagedError(ApexflowError):
    """Something in a store is missing, or is not what was written."""
