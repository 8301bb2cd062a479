"""Texts of the page, one file per language, and the choice of a language for a request."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from starlette.requests import Request

COOKIE: Final = "flowgauge_language"
DEFAULT: Final = "en"
_FOLDER: Final = Path(__file__).parent / "messages"
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

    def p_value(self, p_value: float, n_calibration: int) -> str:
        """Say a p-value as a count of the good images that it was counted from.

        A p-value is (1 + k) / (n + 1), where k of n good pictures scored at least as high.
        """
        k = max(0, round(p_value * (n_calibration + 1)) - 1)
        name = "none" if k == 0 else "usual" if 2 * k > n_calibration else "some"
        return self(f"script.pvalue.{name}", k=k, n=n_calibration)

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
    for item in header.replace(" ", "").split(","):
        code, _, quality = item.partition(";q=")
        with suppress(ValueError):
            asked.append((float(quality or 1), code.partition("-")[0].lower()))
    return [code for quality, code in sorted(asked, key=lambda one: -one[0]) if quality > 0]
