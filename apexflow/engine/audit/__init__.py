"""What is wrong with a data set, before any work: annotations, folders, image headers."""

from apexflow.engine.audit.findings import Finding, Report, Severity
from apexflow.engine.audit.run import audit

__all__ = ["Finding", "Report", "Severity", "audit"]
