"""What is wrong with a data set, before any work: annotations, folders, image headers."""

from apexflow.datasets.audit.findings import Finding, Report, Severity
from apexflow.datasets.audit.run import audit

__all__ = ["Finding", "Report", "Severity", "audit"]
