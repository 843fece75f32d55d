"""One finding, and all of them as text, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import Literal

from apexflow.catalog import Clip

Severity = Literal["error", "warning", "note"]

_ORDER: dict[str, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a person should look at.

    Attributes
    ----------
    severity : {"error", "warning", "note"}
        An error makes a clip, or a frame of it, unusable or wrong; a warning may; a note is
        good to know, and leaves the audit clean.
    rule : str
        The short name of the rule that is broken.
    clip : str
        "data set/subject/name"; empty where the finding concerns no single clip.
    where : str
        The table's file and row, or the folder or file on disk.
    message : str
        What was found, with the values.
    proposal : str
        What to do, where that is known.
    """

    severity: Severity
    rule: str
    clip: str
    where: str
    message: str
    proposal: str = ""

    @classmethod
    def of(
        cls,
        severity: Severity,
        rule: str,
        clip: Clip,
        message: str,
        *,
        where: str = "",
        proposal: str = "",
    ) -> Finding:
        """Make a finding about a clip, by default in its row of the table."""
        return cls(
            severity=severity,
            rule=rule,
            clip=str(clip),
            where=where or clip.origin,
            message=message,
            proposal=proposal,
        )

    def __str__(self) -> str:
        head = f"{self.severity}: {self.clip or self.where}: {self.message} [{self.rule}]"
        place = f"\n    in {self.where}" if self.clip and self.where else ""
        return head + place + (f"\n    proposed: {self.proposal}" if self.proposal else "")


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of an audit, worst first."""

    title: str
    clips: int
    frames: int
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """True when there is neither an error nor a warning."""
        return all(finding.severity == "note" for finding in self.findings)

    @property
    def exit_status(self) -> int:
        """0 when clean, else 1."""
        return 0 if self.clean else 1

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each severity."""
        found: Counter[str] = Counter(finding.severity for finding in self.findings)
        return {severity: found[severity] for severity in _ORDER}

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in self.counts.items())
        head = f"{self.title}: {self.clips} clips, {self.frames} frames checked; {counts}"
        return "\n".join([head, *map(str, self.findings)])

    def to_json(self) -> str:
        """Return the report as a JSON object."""
        data = {
            "title": self.title,
            "clips": self.clips,
            "frames": self.frames,
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
        }
        return json.dumps(data, indent=2, ensure_ascii=False)

    def to_csv(self) -> str:
        """Return the findings as CSV, one a row."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Finding)])
        writer.writeheader()
        writer.writerows(asdict(finding) for finding in self.findings)
        return text.getvalue()


def worst_first(findings: list[Finding]) -> tuple[Finding, ...]:
    """Sort by severity; within one, in the order in which they were found."""
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))
