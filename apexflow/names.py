"""Finding a clip by what people call it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from apexflow.errors import ApexflowError

Key = tuple[str, str, str]


def find_clip(keys: Iterable[Key], name: str, where: str) -> int:
    """Return the position of the clip that ``name`` means.

    Parameters
    ----------
    keys : iterable of (data set, subject, name)
    name : str
        "data set/subject/name", "subject/name", or a name that one clip alone has.
    where : str
        What holds the clips, for the message.

    Raises
    ------
    ApexflowError
        None is called so, or several are.
    """
    found: list[tuple[int, str]] = []
    known: list[str] = []
    for position, (dataset, subject, clip) in enumerate(keys):
        whole = f"{dataset}/{subject}/{clip}"
        known.append(whole)
        if name in (whole, f"{subject}/{clip}", clip):
            found.append((position, whole))
    exact = [position for position, whole in found if whole == name]
    if len(exact) == 1 or len(found) == 1:
        return exact[0] if len(exact) == 1 else found[0][0]
    if found:
        names = ", ".join(whole for _, whole in found[:5])
        raise ApexflowError(f"{name!r} may be any of {names} in {where}: say which")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; is it {' or '.join(near)}?" if near else ""
    raise ApexflowError(f"no clip {name!r} in {where}{hint}")
