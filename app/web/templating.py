"""Template environment: values are escaped, and missing values are errors."""

import json
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from app.database import clock


@cache
def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["iso"] = clock.iso
    made.filters["pairs"] = lambda values: [(value, value) for value in values]
    return made


def data(value: object) -> Markup:
    """Encode a value as JSON for <script type="application/json">, safe against closing tags."""
    text = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return Markup(text)  # noqa: S704  ("<" has been taken out)
