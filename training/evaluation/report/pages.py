"""Pages from templates; everything is escaped, since file and category names are not trusted."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from training.evaluation.summary import percentage

NOT_MEASURED = "\N{EN DASH}"


def render(template: str, **context: Any) -> str:
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> Environment:
    """Build the environment once: compiling a template takes much longer than rendering it."""
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
    """Format 0.0123 as 1.2 % with a no-break space; a dash if it was not measured.

    A share that would round to 0 % or 100 % gets more digits.
    """
    return NOT_MEASURED if value is None else f"{percentage(value, digits)}\N{NO-BREAK SPACE}%"


def figure(value: float | None, digits: int = 3) -> str:
    """Format a number with `digits` decimals; a dash if it was not measured."""
    return NOT_MEASURED if value is None else f"{value:.{digits}f}"
