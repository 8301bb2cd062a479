"""Texts of the page, one file per language, and the choice of a language for a request."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from starlette.requests import Request

COOKIE: Final = "flowgauge_language"
DEFAULT: Final = "en"
_FOLDER: Final = Path(__file__).parent / "messages"
_LONGEST_ITEM: Final = 64  # characters of one in Accept-Language: its expression takes quadratic time
# Texts of these are for scripts.
_FOR_SCRIPTS: Final = ("script.", "decision.", "verdict.", "problem.")


@dataclass(frozen=True)
class Messages:
    """The words of a language.

    Attributes:
        language: its code, such as "en".
        texts: what is said under each key; {names} in braces are for values.
    """

    language: str
    texts: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        """Say something; as plain text, which a template escapes.

        Raises:
            KeyError: the key has no text, or the text asks for a value that did not come.
        """
        text = self.texts[key]
        return text.format(**values) if values else text

    def number(self, value: float, digits: int) -> str:
        """A number as people of the language write it."""
        return f"{value:,.{digits}f}".translate(str.maketrans(",.", self.texts["number.marks"]))

    def percent(self, share: float) -> str:
        """A share in percent, in two digits that count: 0.52 %, 2.3 %, 41 %.

        Where most is there, those of what is missing count, to hundredths: 99.5 %; only all of it is 100 %.
        """
        value = float(f"{100 * share:.2g}")
        if 0.5 < share < 1:
            value = round(100 - max(float(f"{100 * (1 - share):.2g}"), 0.01), 2)
        digits = next(d for d in range(8) if d == 7 or round(value, d) == value)
        return self("number.percent", value=self.number(value, digits))

    def for_scripts(self) -> dict[str, str]:
        """The texts that scripts say."""
        return {key: text for key, text in self.texts.items() if key.startswith(_FOR_SCRIPTS)}


@cache
def languages() -> dict[str, Messages]:
    """All languages by their codes: one for each file of the folder `messages`."""
    files = sorted(_FOLDER.glob("*.json"))
    return {file.stem: Messages(file.stem, json.loads(file.read_text("utf-8"))) for file in files}


def choose(request: Request) -> Messages:
    """The language of a request: that of the cookie, else the best that Accept-Language asks for."""
    there = languages()
    chosen = request.cookies.get(COOKIE)
    if chosen in there:
        return there[chosen]
    for code in _asked_for(", ".join(request.headers.getlist("accept-language"))):
        if code in there:
            return there[code]
    return there[DEFAULT]


def _asked_for(header: str) -> list[str]:
    """Codes without their regions, the most wanted first."""
    asked = []
    for place, item in enumerate(header.split(",")[:20]):
        if len(item) > _LONGEST_ITEM:
            continue
        match = re.fullmatch(r"\s*([a-zA-Z]{2,8})(?:-[\w-]*)?\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*", item)
        if match is not None and (quality := float(match[2] or 1)) > 0:
            asked.append((-quality, place, match[1].lower()))
    return [code for _, _, code in sorted(asked)]
