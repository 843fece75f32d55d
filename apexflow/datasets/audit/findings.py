"""One finding, and all of them as text, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Literal

from apexflow.catalog import Clip
from apexflow.datasets.corrections import Correction
from apexflow.datasets.notes import Note

Severity = Literal["error", "warning", "note"]

_ORDER: dict[str, int] = {"error": 0, "warning": 1, "note": 2}
_EXAMPLES = 2  # of a rule, in a report that people read
_WIDEST = 180  # characters of an example

_CORRECT = "apexflow audit … --write-corrections FILE, confirm FILE, then --corrections FILE"
REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "layout": "name the folder that the layout above begins with",
        "row-unread": "correct the cell, or delete the row; else it is left out, and named",
        "clip-missing": "copy or rename the folder, or delete the row",
        "clip-ambiguous": "rename or move all but one of the folders",
        "clip-surplus": "nothing, if they are not meant to be read; else add rows to the table",
        "frames-unusable": "copy the clip again, or do what the message says",
        "frame-missing": f"copy the clip again, or correct the number: {_CORRECT}",
        "frame-gap": "copy the clip again, if frames were lost in copying",
        "frames-left-out": "nothing, if they are not frames; else give them the others' pattern",
        "frames-shared": "correct subject or path; or name the person in a column of its own",
        "frame-black": "look at the frames; correct onset or offset if the recording stopped",
        "frame-repeated": "look at the frames; a camera that drops frames repeats the last one",
        "frame-duplicate": "copy the clip again: two numbers hold one picture",
        "image-damaged": "copy the file again",
        "image-doubtful": "nothing, if the camera writes so; else copy the files again",
        "video-damaged": "copy the file again",
        "video-count": "nothing: the frames were counted; or write the video again",
        "size-changes": "take the frames of another size out of the folder",
        "bit-depth": "nothing, if the bits are those of the camera",
        "bit-depth-unsure": "save the frames with 8 bits, scaled as you know the camera",
        "orientation": "nothing, if the picture is upright so; else remove the tag",
        "pages": "write each page as a file of its own",
        "format-name": "nothing: the content counts",
        "path-outside": "move the data into the root",
        "recipe": "correct the annotation, or take another recipe",
        "order": _CORRECT,
        "no-motion": f"correct onset or offset: {_CORRECT}",
        "duplicate-row": "delete or rename one of the rows",
        "apex-at-onset": f"--apex flow estimates all; for some: {_CORRECT}",
        "apex-near-onset": "look at the clip: apexflow report, or correct the apex",
        "key-frame-unknown": "--apex middle, difference or flow for the apex; else correct it",
        "emotion-missing": "fill in the cell; without, the clip is in no class",
        "emotion-unknown": _CORRECT,
        "emotion-conflict": "correct the table, if the clip's name is right",
        "subjects-alike": "give a subject one spelling, and two people two names",
        "published-correction": "--corrections published",
        "helper-column": "nothing: the column only checks; or correct the cell",
        "encoding": "save the table as CSV in UTF-8",
    }
)
"""What mends a finding of a rule, where the finding itself does not say."""


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
    fixes : tuple of Correction
        Corrections that would mend it; several of one field are alternatives.
    """

    severity: Severity
    rule: str
    clip: str
    where: str
    message: str
    proposal: str = ""
    fixes: tuple[Correction, ...] = ()

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
        fixes: Sequence[Correction] = (),
    ) -> Finding:
        """Make a finding about a clip, by default in its row of the table."""
        return cls(
            severity=severity,
            rule=rule,
            clip=str(clip),
            where=where or clip.origin,
            message=message,
            proposal=proposal,
            fixes=tuple(fixes),
        )

    @classmethod
    def from_note(cls, note: Note) -> Finding:
        """Make a finding of what a reader was in doubt of."""
        return cls(
            severity=note.severity,
            rule=note.rule,
            clip="",
            where=note.where,
            message=note.message,
            proposal=note.proposal,
        )

    def __str__(self) -> str:
        head = f"{self.severity}: {self.clip or self.where}: {self.message}"
        return head + (f" ({self.where})" if self.clip and self.where else "")


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of an audit, worst first.

    Attributes
    ----------
    title : str
    clips, frames : int
        Looked at.
    findings : tuple of Finding
    deep : bool
        Whether every frame was decoded, and not its header alone.
    """

    title: str
    clips: int
    frames: int
    findings: tuple[Finding, ...]
    deep: bool = True

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

    @property
    def rules(self) -> dict[tuple[str, str], tuple[Finding, ...]]:
        """Findings by (severity, rule), worst and most frequent first."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.severity, finding.rule), []).append(finding)
        ranked = sorted(groups.items(), key=lambda item: (_ORDER[item[0][0]], -len(item[1])))
        return {key: tuple(found) for key, found in ranked}

    @property
    def corrections(self) -> tuple[Correction, ...]:
        """Corrections that would mend findings, each once; alternatives stand side by side."""
        return tuple(dict.fromkeys(fix for finding in self.findings for fix in finding.fixes))

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in self.counts.items())
        how = "" if self.deep or not self.frames else " by their headers (--deep decodes them)"
        head = f"{self.title}: {self.clips} clips, {self.frames} frames checked{how}; {counts}"
        lines = [head]
        for (severity, rule), found in self.rules.items():
            lines += _group(severity, rule, found)
        if self.corrections:
            lines.append(
                f"{len(self.corrections)} corrections are proposed: --write-corrections FILE"
            )
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return the report as a JSON object, with every finding."""
        data = {
            "title": self.title,
            "clips": self.clips,
            "frames": self.frames,
            "deep": self.deep,
            "counts": self.counts,
            "rules": [
                {"severity": severity, "rule": rule, "count": len(found), "remedy": _remedy(found)}
                for (severity, rule), found in self.rules.items()
            ],
            "findings": [asdict(finding) for finding in self.findings],
        }
        return json.dumps(data, indent=2, ensure_ascii=False)

    def to_csv(self) -> str:
        """Return the findings as CSV, one a row."""
        text = io.StringIO()
        names = [field.name for field in fields(Finding) if field.name != "fixes"]
        writer = csv.writer(text)
        writer.writerow(names)
        writer.writerows([getattr(finding, name) for name in names] for finding in self.findings)
        return text.getvalue()


def _group(severity: str, rule: str, found: Sequence[Finding]) -> Iterator[str]:
    clips = len({finding.clip for finding in found if finding.clip})
    number = f"{len(found)} {severity}{'' if len(found) == 1 else 's'}"
    yield f"[{rule}] {number}" + (f" in {clips} clips" if clips > 1 else "")
    several = len({finding.proposal for finding in found}) > 1
    for finding in found[:_EXAMPLES]:
        yield "  " + _short(str(finding))
        if several and finding.proposal:
            yield "    proposed: " + _short(finding.proposal)
    if len(found) > _EXAMPLES:
        yield f"  … {len(found) - _EXAMPLES} more (--json lists all)"
    remedy = _remedy(found)
    if remedy:
        yield f"  to mend: {remedy}"


def _short(text: str) -> str:
    text = text.replace("\n", " ")
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _remedy(found: Sequence[Finding]) -> str:
    """Return what mends the findings of one rule: their own proposal if they have but one."""
    proposals = list(dict.fromkeys(finding.proposal for finding in found if finding.proposal))
    general = REMEDIES.get(found[0].rule, "")
    if len(proposals) == 1 and len(proposals[0]) <= _WIDEST:
        return proposals[0] + (f"; {general}" if found[0].fixes and general else "")
    return general or "; ".join(proposals[:_EXAMPLES])


def worst_first(findings: list[Finding]) -> tuple[Finding, ...]:
    """Sort by severity; within one, in the order in which they were found. Each comes once."""
    once = dict.fromkeys(findings)
    return tuple(sorted(once, key=lambda finding: _ORDER[finding.severity]))
