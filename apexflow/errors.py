"""The two kinds of failure that apexflow reports to people."""

from __future__ import annotations


class ApexflowError(Exception):
    """The run cannot go on: one line that names the file, the rule and the remedy."""


class ClipError(Exception):
    """One clip cannot be used; it is recorded with this reason and the run goes on."""
