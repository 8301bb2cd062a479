"""Texts of the page, one file per language, and the choice of a language for a request."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from starlette.requests import Request

from app.schemas.models import VersionDetails

COOKIE: Final = "flowgauge_language"
DEFAULT: Final = "en"
_FOLDER: Final = Path(__file__).parent / "messages"
# Prefixes of the texts that scripts use.
_FOR_SCRIPTS: Final = ("script.", "decision.", "verdict.", "warning.", "problem.")


@dataclass(frozen=True)
class Messages:
    """Texts of a language.

    Attributes:
        language: its code, such as "en".
        texts: by key; {names} in braces are placeholders.
    """

    language: str
    texts: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        """Return a text with its values filled in, not escaped.

        Raises:
            KeyError: there is no text for the key, or a value is missing.
        """
        text = self.texts[key]
        return text.format(**values) if values else text

    def number(self, value: float, digits: int) -> str:
        """Format a number for the language."""
        return f"{value:,.{digits}f}".translate(str.maketrans(",.", self.texts["number.marks"]))

    def percent(self, share: float) -> str:
        """Format a share in percent with two significant digits: 0.52 %, 2.3 %, 41 %.

        Above one half, two significant digits of the remainder, at most to hundredths: 99.5 %. Only a full
        share is 100 %.
        """
        value = float(f"{100 * share:.2g}")
        if 0.5 < share < 1:
            value = round(100 - max(float(f"{100 * (1 - share):.2g}"), 0.01), 2)
        digits = next(d for d in range(8) if d == 7 or round(value, d) == value)
        return self("number.percent", value=self.number(value, digits))

    def p_value(self, p_value: float, n_calibration: int) -> str:
        """Express a p-value as a count of calibration images.

        A p-value is (1 + k) / (n + 1), where k of n good images scored at least as high.
        """
        k = max(0, round(p_value * (n_calibration + 1)) - 1)
        name = "none" if k == 0 else "usual" if 2 * k > n_calibration else "some"
        return self(f"script.pvalue.{name}", k=k, n=n_calibration)

    def trained_on(self, details: VersionDetails) -> str:
        """Say how many images a version was fitted to, and how many were held out."""
        fitted = self.number(details.data.n_fit, 0)
        if details.starter:
            return self("models.starter", n=fitted)
        return self("models.pictures", fit=fitted, calibration=self.number(details.data.n_calibration, 0))

    def for_scripts(self) -> dict[str, str]:
        return {key: text for key, text in self.texts.items() if key.startswith(_FOR_SCRIPTS)}


@cache
def languages() -> dict[str, Messages]:
    """Return all languages by code, one for each file in the folder `messages`."""
    files = sorted(_FOLDER.glob("*.json"))
    return {file.stem: Messages(file.stem, json.loads(file.read_text("utf-8"))) for file in files}


def choose(request: Request) -> Messages:
    """Choose the language of a request: the cookie's, else the best match of Accept-Language."""
    available = languages()
    chosen = request.cookies.get(COOKIE)
    if chosen in available:
        return available[chosen]
    for code in _preferred(", ".join(request.headers.getlist("accept-language"))):
        if code in available:
            return available[code]
    return available[DEFAULT]


def _preferred(header: str) -> list[str]:
    """Return language codes without regions, the most preferred first."""
    codes = []
    for item in header.replace(" ", "").split(","):
        code, _, quality = item.partition(";q=")
        with suppress(ValueError):
            codes.append((float(quality or 1), code.partition("-")[0].lower()))
    return [code for quality, code in sorted(codes, key=lambda one: -one[0]) if quality > 0]
