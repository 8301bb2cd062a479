import pytest

from app.errors.problems import Problem
from app.http.preconditions import etag, require_match


def refused(if_match: str | None, revision: int | None) -> Problem:
    with pytest.raises(Problem) as caught:
        require_match(if_match, revision)
    return caught.value


@pytest.mark.parametrize("header", ['"3"', ' "3" ', '"2", "3"', '"3","9"', "*", " * ", 'W/"2", "3"'])
def test_matching_header_is_accepted(header: str) -> None:
    assert etag(3) == '"3"'
    require_match(header, 3)


@pytest.mark.parametrize("header", ['"2"', '""', '"33"', '"2", "4"', "", "3", "'3'", '"3" "4"', 'W/"3"'])
def test_other_header_is_refused(header: str) -> None:
    """A weak tag never matches: If-Match compares strongly (RFC 9110, section 13.1.1)."""
    problem = refused(header, 3)
    assert problem.name == "precondition-failed"
    assert '"3"' in problem.detail


def test_missing_header_is_refused() -> None:
    problem = refused(None, 3)
    assert problem.name == "precondition-required"
    assert 'If-Match: "3"' in problem.detail


@pytest.mark.parametrize("header", ["*", '"1"'])
def test_no_header_matches_a_missing_resource(header: str) -> None:
    require_match(None, None)
    assert refused(header, None).name == "precondition-failed"
