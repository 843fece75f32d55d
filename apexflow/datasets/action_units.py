"""FACS action units out of the texts in which data sets write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from apexflow.datasets.tables import is_unknown

# "AD38", "M57": action descriptors and head movements, which FACS numbers as it does units.
# "L12A": left side of unit 12 at intensity A; "10A/B": intensity A or B; "A/L12": asymmetric
# or left; "ref(7B)": a reflex; "AU4(k)": 4DME's spelling.
_UNIT = re.compile(
    r"(?:(?P<kind>AU|AD|M)\s*)?(?P<side>[LRATB](?:/[LRATB])?)?(?P<number>[0-9]{1,2})"
    r"(?P<intensity>[A-E](?:/[A-E])?)?(?:\(k\))?",
    re.IGNORECASE,
)
_REFLEX = re.compile(r"ref\s*\((.*)\)", re.IGNORECASE)
_GROUP = re.compile(r"\((.*)\)")
_OR = re.compile(r"\s+or\s+", re.IGNORECASE)
_AND = re.compile(r"\s*[+,，;]\s*")  # noqa: RUF001  CAS(ME)³ has a full-width comma


@dataclass(frozen=True, slots=True)
class ActionUnit:
    """One action unit.

    Attributes
    ----------
    number : int
        Its number in FACS.
    side : str
        "L" left, "R" right, "A" asymmetric, "T" top, "B" bottom, "A/L" one of two; empty for
        both sides.
    intensity : str
        "A" (trace) to "E" (maximum), "A/B" one of two; empty where it is not coded.
    reflex : bool
        True where the coder took it for a reflex.
    kind : {"AU", "AD", "M"}
        Action unit, action descriptor ("AD38"), or movement of the head ("M57"), as written.
    """

    number: int
    side: str = ""
    intensity: str = ""
    reflex: bool = False
    kind: str = "AU"


@dataclass(frozen=True, slots=True)
class ActionUnits:
    """The action units of a clip.

    Attributes
    ----------
    groups : tuple of tuple of ActionUnit
        Units that occur together; the members of one group are alternatives ("or").
    unparsed : tuple of str
        What is not an action unit, as it is written.
    """

    groups: tuple[tuple[ActionUnit, ...], ...] = ()
    unparsed: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """Every number that is mentioned, once, in ascending order."""
        return tuple(sorted({unit.number for group in self.groups for unit in group}))


def parse_action_units(text: str) -> ActionUnits:
    """Parse a cell such as ``(R6 or R12)+R15``, ``4B+7B+43E`` or ``ref(L10)+A12B``.

    A cell that is empty, or says "nan", "/" or "n/a", has no units. What cannot be parsed
    ("?", "soft focus") is kept in ``unparsed``; nothing is guessed.
    """
    groups: list[tuple[ActionUnit, ...]] = []
    unparsed: list[str] = []
    if is_unknown(text) and "?" not in text:
        return ActionUnits()
    for term in _AND.split(text.strip()):
        if not term:
            continue
        inner = _GROUP.fullmatch(term)
        units = [_unit(part) for part in _OR.split(inner[1] if inner else term)]
        if all(units):
            groups.append(tuple(unit for unit in units if unit))
        else:
            unparsed.append(term)
    return ActionUnits(tuple(groups), tuple(unparsed))


def _unit(text: str) -> ActionUnit | None:
    text = text.strip()
    reflex = _REFLEX.fullmatch(text)
    match = _UNIT.fullmatch(reflex[1].strip() if reflex else text)
    if match is None:
        return None
    return ActionUnit(
        number=int(match["number"]),
        side=(match["side"] or "").upper(),
        intensity=(match["intensity"] or "").upper(),
        reflex=reflex is not None,
        kind=(match["kind"] or "AU").upper(),
    )
