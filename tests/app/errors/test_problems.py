import http
import typing

import pytest

from app.errors.problems import TYPES, ProblemName


def test_the_table_has_a_row_for_every_name() -> None:
    assert set(TYPES) == set(typing.get_args(ProblemName))


@pytest.mark.parametrize("name", TYPES)
def test_rows_are_complete(name: ProblemName) -> None:
    row = TYPES[name]
    assert 400 <= row.status <= 599
    assert http.HTTPStatus(row.status)
    assert row.title
    assert row.example
    assert (row.retry_after is not None) == (row.status in (408, 429, 503))
