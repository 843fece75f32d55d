"""One rule for the spellings of a subject: 6, 6.0, 006, s06, S6 and sub06 are one person."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from apexflow.datasets.names import alike
from apexflow.datasets.notes import Note, take_note
from apexflow.datasets.rows import whole_number

# Words that only say that a number is a subject's. Others part people: P3 is not C3.
_NUMBERED = re.compile(r"(?:s|sub|subj|subject|sp|spno)?[\s._-]*(?P<number>\d.*)", re.ASCII)
_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


def subject_key(text: str) -> str:
    """Return what all spellings of a subject have in common.

    A number is itself, without ".0", leading zeros and words such as "sub"; other texts are
    compared without case, leading zeros and punctuation.
    """
    plain = alike(text).strip()
    match = _NUMBERED.fullmatch(plain)
    number = whole_number(match["number"]) if match else None
    if number is not None:
        return str(number)
    return _ZEROS.sub("", re.sub(r"[\W_]", "", plain)) or plain


def one_spelling(dataset: str, subjects: Iterable[str], where: str) -> dict[str, str]:
    """Return the one spelling of each subject; a note tells of those that have several.

    It is the most frequent one, a whole number without its ".0".
    """
    counts = Counter(subjects)
    groups: dict[str, list[str]] = defaultdict(list)
    for text in counts:
        groups[subject_key(text)].append(text)
    chosen: dict[str, str] = {}
    for spellings in groups.values():
        best = _without_point(max(spellings, key=lambda text: counts[text]))
        chosen |= dict.fromkeys(spellings, best)
        if len(spellings) > 1:
            take_note(
                Note(
                    "warning",
                    "subjects-alike",
                    dataset,
                    f"subjects {', '.join(sorted(spellings))}: are they one person?",
                    f"they are taken for one, {best}; give another person another name in {where}",
                )
            )
    return chosen


def _without_point(text: str) -> str:
    match = re.fullmatch(r"(\d+)\.0*", text, re.ASCII)
    return match[1] if match else text
