"""The licence of a category's pictures, and whether it forbids commerce."""

import re
from pathlib import Path

_NAMES = ("licence.txt", "license.txt")
_MOST = 2**16  # characters that are read of it
_AROUND = 100  # what is quoted of a very long line, before and after what forbids
_HYPHEN = r"[\s_\-\u2010-\u2015]*"
_USE = r"(?:use|uses|usage|purpose|purposes|application|applications)"
_FORBIDS = re.compile(
    "|".join(
        [
            r"(?<![a-z])NC(?![a-z])",
            rf"\bnon{_HYPHEN}commercial",
            r"\bno\s+commercial",
            r"\bnot\s+(?:be\s+)?(?:(?:used|intended|allowed|permitted|licensed|available)\s+)?"
            r"(?:(?:for|in)\s+)?(?:any\s+)?commercial",
            rf"\bcommercial\s+{_USE}\s+(?:\w+\s+){{0,3}}?(?:prohibited|forbidden|excluded|not\s+(?:permitted|allowed))",
            r"\b(?:prohibits|forbids|excludes)\s+(?:any\s+)?commercial",
            rf"\b(?:research|academic|educational|scientific)\s+{_USE}\s+only\b",
            r"(?<!\bnot )\bonly\s+for\s+(?:\w+\s+)?(?:research|academic|educational|scientific)\b",
        ]
    ),
    re.IGNORECASE,
)


def licence(folder: Path) -> str | None:
    """What a category's licence.txt or license.txt says: its first line, and what below forbids commerce.

    Args:
        folder: of the category. The file's name may be in any case.

    Returns:
        One line, or None where there is no file, or nothing in it.
    """
    found = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True) if path.is_file()}
    file = next((found[name] for name in _NAMES if name in found), None)
    if file is None:
        return None
    # A sign of another encoding is no reason to lose what was trained.
    with file.open(encoding="utf-8", errors="replace") as opened:
        text = opened.read(_MOST).strip()
    first = text.partition("\n")[0].strip()
    forbids = _FORBIDS.search(text)
    if forbids is None or forbids_commerce(first):
        return first or None
    begin = max(text.rfind("\n", 0, forbids.start()) + 1, forbids.start() - _AROUND)
    end = min(len(text) if (line := text.find("\n", forbids.end())) < 0 else line, forbids.end() + _AROUND)
    return f"{first}; {' '.join(text[begin:end].split())}"


def forbids_commerce(text: str) -> bool:
    """Whether a licence's text, or its name, says that pictures are for no commercial use."""
    return _FORBIDS.search(text) is not None
