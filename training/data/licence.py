"""The licence of a category's images, and a search for non-commercial terms."""

import re
from pathlib import Path

_NAMES = ("licence.txt", "license.txt")
_MAX_CHARS = 2**16  # read from the file
_CONTEXT = 60  # characters quoted before and after a non-commercial term
_HYPHEN = r"[\s_\-\u2010-\u2015]*"
_USE = r"(?:use|uses|usage|purpose|purposes|application|applications|exploitation)"
_NO_TRADE = r"(?:personal|private|research|academic|educational|scientific)"
# Many licences permit both: "for any purpose, commercial or non-commercial".
_BESIDE = "".join(f"(?<!commercial{end} {word} )" for end in ("", "ly") for word in ("or", "and"))
_FORBIDS = re.compile(
    "|".join(
        [
            r"(?-i:BY[\s_-]*NC(?![a-z])|(?<![A-Za-z])NC[_-](?:SA|ND))",
            rf"{_BESIDE}\bnon{_HYPHEN}commercial(?!ly| distribution)",
            rf"\bno commercial {_USE}",
            r"\bnot (?:\w+ ){0,6}?(?:for|in) (?:any )?commercial",
            rf"\bcommercial {_USE} (?:(?!not\b)\w+ ){{0,3}}?(?:prohibited|forbidden|excluded)",
            rf"\bcommercial {_USE} (?:\w+ ){{0,3}}?not (?:permitted|allowed)",
            rf"\bcommercial {_USE} requires ",
            r"\b(?:prohibits|forbids|excludes) (?:any )?commercial",
            rf"\b{_NO_TRADE} {_USE} only\b",
            rf"(?<!\bnot )\bonly for (?:\w+ )?{_NO_TRADE}\b",
        ]
    ),
    re.IGNORECASE,
)


def licence(folder: Path) -> str | None:
    """Read the first line of a category's licence.txt or license.txt, and a non-commercial term below.

    Args:
        folder: the category's folder. The file's name may be in any case.

    Returns:
        One line, or None if the file is missing or empty.
    """
    found = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True) if path.is_file()}
    file = next((found[name] for name in _NAMES if name in found), None)
    if file is None:
        return None
    # An odd encoding must not fail a training run.
    with file.open(encoding="utf-8", errors="replace") as opened:
        text = opened.read(_MAX_CHARS).strip()
    first = text.partition("\n")[0].strip()
    flat = _flat(text)
    forbids = _FORBIDS.search(flat)
    if forbids is None or forbids_commercial_use(first):
        return first or None
    after = min(forbids.start(), len(_flat(first)) + 1)  # the first line is not quoted twice
    begin, end = max(after, forbids.start() - _CONTEXT), forbids.end() + _CONTEXT
    return f"{first}; {flat[begin:end].strip()}"


def forbids_commercial_use(text: str) -> bool:
    """Tell if the text or the name of a licence forbids commercial use."""
    return _FORBIDS.search(_flat(text)) is not None


def _flat(text: str) -> str:
    return " ".join(text.split())
