"""Templates to pages: escaped throughout, since names of files, categories and defects are anybody's."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from training.evaluation.summary import percentage

NOT_MEASURED = "\N{EN DASH}"


def render(template: str, **context: Any) -> str:
    """Fill one of the templates beside this module."""
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> Environment:
    """Of all pages: to compile a template takes much longer than to fill it."""
    environment = Environment(
        loader=PackageLoader("training.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(share=share, figure=figure)
    return environment


def share(value: float | None, digits: int = 1) -> str:
    """0.0123 as 1.2 % that no line tears apart; a dash for what was not measured.

    Only nothing is 0 %, and only all is 100 %: what would be rounded to them gets more digits.
    """
    return NOT_MEASURED if value is None else f"{percentage(value, digits)}\N{NO-BREAK SPACE}%"


def figure(value: float | None, digits: int = 3) -> str:
    """A figure with so many digits after the point; a dash for what was not measured."""
    return NOT_MEASURED if value is None else f"{value:.{digits}f}"
