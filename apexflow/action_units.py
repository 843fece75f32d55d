"""FACS action units out of the texts in which data sets write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import Catalog
from apexflow.cells import is_unknown
from apexflow.errors import ApexflowError

CD6ME_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17)
"""The action units of the protocol CD6ME (arXiv:2211.11425)."""

UNKNOWN = -1

# "AD38", "M57": action descriptors and head movements, which FACS numbers as it does units.
# "L12A": left side of unit 12 at intensity A; "10A/B": intensity A or B; "A/L12": asymmetric
# or left; "ref(7B)": a reflex; "AU4(k)": a mark of 4DME.
_UNIT = re.compile(
    r"(?:(?P<kind>AU|AD|M)\s*)?(?P<side>[LRATB](?:/[LRATB])?)?(?P<number>[0-9]{1,2})"
    r"(?P<intensity>[A-E](?:/[A-E])?)?(?P<doubt>\(k\))?",
    re.IGNORECASE,
)
_REFLEX = re.compile(r"ref\s*\(([^()]*)\)", re.IGNORECASE)
_GROUP = re.compile(r"\((.*)\)")
# "12(B/C)", "(A/L)4": SAMM writes one of two letters with brackets and without.
_LETTERS = re.compile(r"\(([A-Z]/[A-Z])\)", re.IGNORECASE)
# "/" stands for "or" (SAMM's key) between units, as in "23/24" and "12A/14A"; not in "A/L12".
_OR = re.compile(r"\s*or\s*|(?:(?<=[0-9])|(?<=[0-9][A-E]))\s*/\s*(?=[LRATB]?[0-9])", re.IGNORECASE)
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
    doubtful : bool
        True where 4DME marks it "(k)"; the authors of CD6ME do not count such a unit.
    """

    number: int
    side: str = ""
    intensity: str = ""
    reflex: bool = False
    kind: str = "AU"
    doubtful: bool = False


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

    Parameters
    ----------
    text : str

    Returns
    -------
    ActionUnits
    """
    groups: list[tuple[ActionUnit, ...]] = []
    unparsed: list[str] = []
    if is_unknown(text) and "?" not in text:
        return ActionUnits()
    for term in _AND.split(text.strip()):
        if not term:
            continue
        plain = _LETTERS.sub(r"\1", term)
        reflex = _REFLEX.fullmatch(plain)
        inner = reflex or _GROUP.fullmatch(plain)
        parts = _OR.split(inner[1] if inner else plain)
        units = [_unit(part, reflex=reflex is not None) for part in parts]
        if all(units):
            groups.append(tuple(unit for unit in units if unit))
        else:
            unparsed.append(term)
    return ActionUnits(tuple(groups), tuple(unparsed))


def _unit(text: str, *, reflex: bool) -> ActionUnit | None:
    text = text.strip()
    itself = _REFLEX.fullmatch(text)
    match = _UNIT.fullmatch(itself[1].strip() if itself else text)
    if match is None:
        return None
    return ActionUnit(
        number=int(match["number"]),
        side=(match["side"] or "").upper(),
        intensity=(match["intensity"] or "").upper(),
        reflex=reflex or itself is not None,
        kind=(match["kind"] or "AU").upper(),
        doubtful=match["doubt"] is not None,
    )


@dataclass(frozen=True, slots=True)
class ActionUnitTargets:
    """Which action units each clip of a catalog shows.

    Attributes
    ----------
    units : tuple of int
    values : int8 (clip, unit)
        1 shown, 0 not shown, -1 unknown: such an entry counts in no loss and in no score.
    datasets : tuple of str
        Of each clip.
    """

    units: tuple[int, ...]
    values: NDArray[np.int8]
    datasets: tuple[str, ...]

    @property
    def counts(self) -> Mapping[str, tuple[int, ...]]:
        """How many clips show each unit, by data set."""
        return self._counted(1)

    @property
    def unknown(self) -> Mapping[str, tuple[int, ...]]:
        """Of how many clips it is unknown, by data set."""
        return self._counted(UNKNOWN)

    def _counted(self, value: int) -> dict[str, tuple[int, ...]]:
        names = np.array(self.datasets)
        found = {name: (self.values[names == name] == value).sum(0) for name in np.unique(names)}
        return {str(name): tuple(row.tolist()) for name, row in found.items()}

    def __str__(self) -> str:
        """Return a table: a row a data set, and one of all, "shown" or "shown (unknown)"."""
        shown, unknown = dict(self.counts), dict(self.unknown)
        for rows in (shown, unknown):
            rows["all"] = tuple(map(sum, zip(*rows.values(), strict=True)))
        head = [f"{'':10s} {'clips':>6s}", *(f"{f'AU{unit}':>9s}" for unit in self.units)]
        lines = ["".join(head)]
        for name, row in shown.items():
            clips = len(self.datasets) if name == "all" else self.datasets.count(name)
            pairs = zip(row, unknown[name], strict=True)
            cells = (f"{f'{a} ({b})' if b else a:>9}" for a, b in pairs)
            lines.append("".join([f"{name:10s} {clips:6d}", *cells]))
        return "\n".join(lines)


def action_unit_targets(catalog: Catalog, units: Sequence[int] = CD6ME_UNITS) -> ActionUnitTargets:
    """Return which action units each clip shows, as targets of several labels a clip.

    The rules:

    - A unit that is coded is shown, on either side or on both, at any intensity, reflexes
      included; action descriptors and head movements (AD38, M57) are no units.
    - Of alternatives ("R6 or R12", in brackets or not, "12/14") each is unknown, unless it is
      also coded for certain; a unit on one of two sides ("L12 or R12") is shown.
    - A unit that is marked "(k)" is unknown.
    - A clip with a term that is no unit ("?", "soft focus") shows what it names; of the other
      units it is unknown.
    - Of a clip without any text nothing is known.

    Parameters
    ----------
    catalog : Catalog
    units : sequence of int
        The action units, those of CD6ME by default.

    Returns
    -------
    ActionUnitTargets
        One of 1, 0 and -1 (unknown) for each clip and unit.

    Raises
    ------
    ApexflowError
        ``units`` is empty, names one twice, or no clip has an action unit.
    """
    units = tuple(units)
    if not units or len(set(units)) < len(units):
        raise ApexflowError(f"units must be different numbers, one at least. Got {units}.")
    rows = [_target(parse_action_units(clip.action_units), units) for clip in catalog]
    values = np.array(rows, np.int8).reshape(len(rows), len(units))
    if not (values != UNKNOWN).any():
        raise ApexflowError(f"none of {len(rows)} clips has an action unit in its table")
    return ActionUnitTargets(units, values, tuple(clip.dataset for clip in catalog))


def _target(found: ActionUnits, units: tuple[int, ...]) -> list[int]:
    possible = {unit.number for group in found.groups for unit in group if unit.kind == "AU"}
    certain = {group[0].number for group in found.groups if _is_certain(group)}
    open_to_all = bool(found.unparsed) or not found.groups
    return [
        1 if unit in certain else UNKNOWN if open_to_all or unit in possible else 0
        for unit in units
    ]


def _is_certain(group: tuple[ActionUnit, ...]) -> bool:
    """Whether all alternatives are one action unit, and none is marked as doubtful."""
    numbers = {(unit.kind, unit.number) for unit in group}
    return len(numbers) == 1 and group[0].kind == "AU" and not any(u.doubtful for u in group)
