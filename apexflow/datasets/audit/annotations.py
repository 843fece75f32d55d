"""Rules that a table breaks on its own, without a look at the disk."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from apexflow.action_units import parse_action_units
from apexflow.catalog import UNREAD_SUBJECT, Clip
from apexflow.datasets import Reader
from apexflow.datasets.audit.findings import Finding
from apexflow.datasets.corrections import Correction, decided, proposals, published_corrections
from apexflow.datasets.emotions import EMOTIONS, canonical_emotion, unknown_emotions
from apexflow.datasets.reader import CLIP_KEY, CLIP_PATH
from apexflow.datasets.subjects import subject_key


def check_annotations(reader: Reader, clips: Sequence[Clip]) -> Iterator[Finding]:
    """Yield what is wrong with the rows; of those that cannot be read, nothing else."""
    yield from _count(reader, clips)
    for clip in clips:
        yield from _problems(clip)
    clips = [clip for clip in clips if not clip.problems]
    yield from _alike(clips)
    published = published_corrections()
    apexes = any(clip.apex is not None for clip in clips)
    emotions = any(clip.emotion for clip in clips)
    for clip in clips:
        yield from _order(clip, published)
        yield from _missing_key_frames(clip, apexes)
        yield from _emotion(clip, emotions)
        yield from _action_units(clip, published)
        yield from _intervals(clip)


def _count(reader: Reader, clips: Sequence[Clip]) -> Iterator[Finding]:
    found = len(clips), len({clip.subject for clip in clips} - {UNREAD_SUBJECT})
    dataset = clips[0].dataset if clips else reader.name
    expected = reader.published.get(dataset)
    if expected is not None and found != expected:
        yield Finding(
            severity="note",
            rule="count",
            clip="",
            where=dataset,
            message=f"{found[0]} clips of {found[1]} subjects; the published data set has "
            f"{expected[0]} of {expected[1]}",
        )


def _problems(clip: Clip) -> Iterator[Finding]:
    rules = {CLIP_KEY: "duplicate-row", CLIP_PATH: "path-outside"}
    for column, what in clip.problems:
        said, _, proposal = what.partition("; ")
        yield Finding.of("error", rules.get(column, "row-unread"), clip, said, proposal=proposal)


def _alike(clips: Sequence[Clip]) -> Iterator[Finding]:
    """Find subjects that may be one: in two folds, its clips would train and test."""
    spellings: dict[tuple[str, str], set[str]] = {}
    for clip in clips:
        spellings.setdefault((clip.dataset, subject_key(clip.subject)), set()).add(clip.subject)
    for (dataset, _), subjects in spellings.items():
        if len(subjects) > 1:
            yield Finding(
                severity="warning",
                rule="subjects-alike",
                clip="",
                where=dataset,
                message=f"subjects {', '.join(sorted(subjects))}: are they one person?",
            )


def _order(clip: Clip, published: Sequence[Correction]) -> Iterator[Finding]:
    onset, apex, offset = clip.onset, clip.apex, clip.offset
    known = [number for number in (onset, apex, offset) if number is not None]
    published = [one for one in published if one.field != "action_units"]
    proposed = tuple(proposals(clip, published))
    if known != sorted(known):
        yield Finding.of(
            "error",
            "order",
            clip,
            f"onset {onset}, apex {apex}, offset {offset} are out of order",
            proposal=_published(clip, published),
            fixes=proposed or _put_in_order(clip),
        )
    elif onset is not None and onset == offset:
        yield Finding.of("error", "no-motion", clip, f"onset and offset are both {onset}")
    elif onset is not None and apex is not None and apex == onset:
        yield Finding.of(
            "warning",
            "apex-at-onset",
            clip,
            f"apex and onset are both {onset}: no motion between them",
            proposal=_published(clip, published) or "estimate the apex: middle, difference, flow",
            fixes=proposed or (_fix(clip, "apex", "", "the apex is the onset"),),
        )
    elif onset is not None and apex == onset + 1 and not _is_prepared(clip):
        yield Finding.of(
            "warning", "apex-near-onset", clip, f"apex {apex} is one frame after onset {onset}"
        )
    elif _published(clip, published):
        yield Finding.of(
            "warning",
            "published-correction",
            clip,
            "a published correction differs",
            proposal=_published(clip, published),
            fixes=proposed,
        )


def _put_in_order(clip: Clip) -> tuple[Correction, ...]:
    """Propose onset and offset exchanged where that is enough, else an unknown apex."""
    onset, apex, offset = clip.onset, clip.apex, clip.offset
    if onset is not None and offset is not None and offset < onset:
        if apex is None or offset <= apex <= onset:
            reason = "onset and offset are exchanged"
            return (
                _fix(clip, "onset", str(offset), reason),
                _fix(clip, "offset", str(onset), reason),
            )
        return ()
    return (_fix(clip, "apex", "", "the apex lies outside onset and offset"),)


def _fix(clip: Clip, field: str, new: str, reason: str) -> Correction:
    """Propose a value that nobody has published: a person has to confirm it."""
    old = clip.emotion_text if field == "emotion" else getattr(clip, field)
    return Correction(
        dataset=clip.dataset,
        subject=clip.subject,
        clip=clip.name,
        field=field,
        old="" if old is None else str(old),
        new=new,
        source=f"proposed by apexflow audit: {reason}",
    )


def _published(clip: Clip, published: Sequence[Correction]) -> str:
    found = proposals(clip, published)
    sure = [str(c) for c in found if c in decided(found)]
    if sure or not found:
        return "; ".join(sure)
    return "undecided, choose one: " + "; ".join(map(str, found))


def _missing_key_frames(clip: Clip, apexes: bool) -> Iterator[Finding]:
    if clip.onset is None or (clip.offset is None and not _is_prepared(clip)):
        name = "onset" if clip.onset is None else "offset"
        yield Finding.of("warning", "key-frame-unknown", clip, f"the {name} is unknown")
    if apexes and clip.apex is None:
        yield Finding.of(
            "warning",
            "key-frame-unknown",
            clip,
            "the apex is unknown",
            proposal="estimate it: middle, difference, flow",
        )


def _is_prepared(clip: Clip) -> bool:
    """Tell whether a clip holds its key frames alone, numbered 1, 2, 3."""
    return any(name.startswith("annotated ") for name, _ in clip.extra)


def _emotion(clip: Clip, expected: bool) -> Iterator[Finding]:
    if expected and not clip.emotion:
        yield Finding.of("warning", "emotion-missing", clip, "no emotion, unlike other rows")
    unknown = unknown_emotions(clip.emotion)
    if unknown:
        yield Finding.of(
            "warning",
            "emotion-unknown",
            clip,
            f"no known emotion: {', '.join(unknown)}",
            fixes=_like_emotion(clip),
        )
    written = canonical_emotion(clip.emotion_text)
    if written != clip.emotion:
        yield Finding.of(
            "warning",
            "emotion-conflict",
            clip,
            f"the table says {clip.emotion_text!r}, the clip's name {clip.emotion!r}, "
            "which is used",
        )


def _like_emotion(clip: Clip) -> tuple[Correction, ...]:
    found = difflib.get_close_matches(clip.emotion, EMOTIONS, n=1, cutoff=0.8)
    return (_fix(clip, "emotion", found[0], "a similar emotion"),) if found else ()


def _action_units(clip: Clip, published: Sequence[Correction]) -> Iterator[Finding]:
    found = parse_action_units(clip.action_units)
    doubts = [f"no action unit: {text!r}" for text in found.unparsed]
    doubts += [
        f"one of several: {', '.join(str(unit.number) for unit in group)}"
        for group in found.groups
        if len({unit.number for unit in group}) > 1
    ]
    mine = [one for one in published if one.field == "action_units"]
    if doubts:
        yield Finding.of(
            "note",
            "action-units",
            clip,
            "; ".join(doubts),
            proposal=_published(clip, mine),
            fixes=tuple(proposals(clip, mine)),
        )


def _intervals(clip: Clip) -> Iterator[Finding]:
    """Check the up to three intervals of a row of SMIC's tables."""
    extra = dict(clip.extra)
    written = extra.get("intervals", "").split()
    first, last = int(extra.get("first frame", 0)), int(extra.get("last frame", 10**12))
    seen: set[str] = set()
    for interval in written:
        onset, offset = (None if n == "None" else int(n) for n in interval.split("-"))
        if onset is None or offset is None:
            message = f"interval {interval} is incomplete"
        elif interval in seen:
            message = f"interval {interval} is repeated"
        elif not onset <= offset:
            message = f"interval {interval} is out of order"
        elif onset < first or offset > last:
            message = f"interval {interval} is outside the video, {first}-{last}"
        elif seen and onset < min(int(text.partition("-")[0]) for text in seen):
            message = f"interval {interval} stands after a later one"
        else:
            message = ""
        seen.add(interval)
        if message:
            yield Finding.of("warning", "interval", clip, message)
