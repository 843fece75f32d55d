"""The encoding of a text that is not UTF-8: recognised by what it would say, or refused.

Each candidate is scored by the share of its characters beyond ASCII that stand as people write
them: Chinese in characters of GB 2312, Cyrillic in words of its own, accents among Latin letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from apexflow.errors import ApexflowError

_NAMES = {
    "utf-8": "UTF-8",
    "utf-8-sig": "UTF-8 with a byte order mark",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16 without a byte order mark",
    "utf-16-be": "UTF-16 without a byte order mark",
    "utf-32": "UTF-32",
    "gb18030": "GBK/GB18030",
    "cp932": "Shift-JIS",
    "cp949": "EUC-KR (Korean)",
    "cp1251": "Windows-1251 (Cyrillic)",
    "cp1252": "Windows-1252 (Western)",
}
_GOOD = 0.75  # of the characters beyond ASCII, for an encoding to be believed
_LEAST_SYLLABLES = 12
_LEAD = 0.2  # and so much before the next
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
# Signs that Western and Cyrillic texts of a spreadsheet hold: quotes, dashes, degrees.
_SIGNS = frozenset("‘’“”„–—…•°±²³µ·×«»½¼¾©®™€§\u00a0№")  # noqa: RUF001
_CYRILLIC = frozenset(chr(i) for i in range(0x410, 0x450)) | frozenset("ЁёІіЇїЄєҐґЎў")
_HIGH = re.compile(rb"[\x80-\xff]+")


def decode_text(name: str, data: bytes) -> tuple[str, str]:
    """Return a text and the name of its encoding.

    Raises `ApexflowError`, with ``name``, where it is not text, or its encoding cannot be told.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decoded(name, data, encoding), _NAMES[encoding]
    encoding = _without_mark(data)
    if encoding:
        return _decoded(name, data, encoding), _NAMES[encoding]
    if b"\0" not in data:
        try:
            return data.decode("utf-8"), _NAMES["utf-8"]
        except UnicodeDecodeError:
            return _guessed(name, data)
    raise _refusal(name)


def _refusal(name: str) -> ApexflowError:
    return ApexflowError(
        f"{name}: is neither text (UTF-8, UTF-16, GBK, Shift-JIS, EUC-KR, Windows-1251 or -1252) "
        "nor an .xlsx workbook; save it as one of these"
    )


def _decoded(name: str, data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise _refusal(name) from None
    if "\0" in text:
        raise _refusal(name)
    return text


def _without_mark(data: bytes) -> str:
    """Recognise UTF-16 by its zeros: every other byte of what is ASCII in it."""
    if len(data) < 4 or len(data) % 2:
        return ""
    head = data[:4096]
    even, odd = head[::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if odd > half // 2 and not even:
        return "utf-16-le"
    return "utf-16-be" if even > half // 2 and not odd else ""


def _guessed(name: str, data: bytes) -> tuple[str, str]:
    found = []
    for encoding, score in _SCORES.items():
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        found.append((score(data, text), encoding, text))
    found.sort(key=lambda item: item[0], reverse=True)
    best = found[0] if found else (0.0, "", "")
    rivals = [item for item in found[1:] if item[0] > best[0] - _LEAD and item[2] != best[2]]
    if best[0] < _GOOD or rivals:
        like = " or ".join(_NAMES[item[1]] for item in found[:2]) or "none that is known"
        raise ApexflowError(
            f"{name}: is not UTF-8, and its encoding cannot be told ({like}?); open it in a "
            "spreadsheet program and save it as .xlsx, or as CSV in UTF-8"
        )
    return best[2], _NAMES[best[1]]


def _chinese(data: bytes, text: str) -> float:
    """Score GBK: pairs of GB 2312, above all its first 3755 characters and its punctuation."""
    high = [run.group() for run in _HIGH.finditer(data)]
    if _is_korean(data):
        return 0.0
    good = sum(sum(_gb2312(run[i], run[i + 1]) for i in range(0, len(run) - 1, 2)) for run in high)
    return 2 * good / max(1, sum(map(len, high)))


def _korean(data: bytes, text: str) -> float:
    """Score EUC-KR, whose bytes are those of GB 2312 as well."""
    return float(_is_korean(data))


def _is_korean(data: bytes) -> bool:
    """Tell whether pairs of bytes are Hangul: their first bytes end where those of Chinese go on.

    Of Chinese characters three in five lie in that half: of twelve different ones all do in four
    of a thousand texts. A text of fewer is taken for Chinese, and the audit names that.
    """
    runs = [run.group() for run in _HIGH.finditer(data)]
    pairs = {run[i : i + 2] for run in runs for i in range(0, len(run) - 1, 2)}
    syllables = {pair for pair in pairs if pair[0] >= 0xB0}
    return len(syllables) >= _LEAST_SYLLABLES and all(
        pair[0] <= 0xC8 and pair[1] >= 0xA1 for pair in syllables
    )


def _gb2312(lead: int, trail: int) -> float:
    if trail < 0xA1:
        return 0.0
    if 0xB0 <= lead <= 0xD7 or 0xA1 <= lead <= 0xA3:
        return 1.0
    return 0.5 if 0xD8 <= lead <= 0xF7 else 0.0


def _japanese(data: bytes, text: str) -> float:
    """Score Shift-JIS: kana and the common kanji, not one among Latin letters."""
    good = total = 0.0
    for match in re.finditer(r"[^\x00-\x7f]+", text):
        run = match.group()
        total += len(run)
        if len(run) > 1 or not _beside_letters(text, match):
            good += sum(map(_kana_or_kanji, run))
    return good / max(1.0, total)


def _kana_or_kanji(char: str) -> float:
    if "\u3000" <= char <= "\u30ff" or "\uff01" <= char <= "\uff5e":
        return 1.0
    lead = char.encode("cp932", "replace")[0]
    return 0.9 if 0x88 <= lead <= 0x97 else 0.4 if 0x98 <= lead <= 0x9F else 0.0


def _beside_letters(text: str, match: re.Match[str]) -> bool:
    around = text[: match.start()][-1:] + text[match.end() : match.end() + 1]
    return any(char.isascii() and char.isalpha() for char in around)


def _cyrillic(data: bytes, text: str) -> float:
    """Score Windows-1251: words of Cyrillic letters alone, capitals in front."""
    good = total = 0.0
    for word in re.findall(r"[^\W\d_]+|[^\x00-\x7f]", text):
        beyond = sum(char > "\x7f" for char in word)
        total += beyond
        if beyond and all(char in _CYRILLIC for char in word):
            good += beyond * _spelled(word)
        elif beyond and word in _SIGNS:
            good += 0.5
    return good / max(1.0, total)


def _spelled(word: str) -> float:
    if len(word) == 1:
        return 0.5
    return 1.0 if word[1:] == word[1:].lower() else 0.5 if word.isupper() else 0.0


def _western(data: bytes, text: str) -> float:
    """Score Windows-1252: accented letters one at a time among plain ones, and signs."""
    good = total = 0
    for match in re.finditer(r"[^\x00-\x7f]+", text):
        run = match.group()
        total += len(run)
        letters = all(unicodedata.category(char)[0] == "L" and char not in "ªºƒ" for char in run)
        follows = text[match.end() : match.end() + 1]
        signs = all(char in _SIGNS for char in run)
        raised = run[-1] in "²³" and follows.isalpha()  # nobody writes that
        if (letters and len(run) <= 2 and _beside_letters(text, match)) or (signs and not raised):
            good += len(run)
    return good / max(1, total)


_SCORES: dict[str, Callable[[bytes, str], float]] = {
    "cp1252": _western,
    "gb18030": _chinese,
    "cp1251": _cyrillic,
    "cp932": _japanese,
    "cp949": _korean,
}
