from typing import Any

import pytest
from pydantic import Field, ValidationError

from app.schemas.body import Body


class _Inner(Body):
    width: int = 0


class _Outer(Body):
    name: str = Field("", max_length=9)
    inner: _Inner = _Inner()


def faults(value: Any) -> list[tuple[tuple[int | str, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        _Outer.model_validate(value)
    return [(error["loc"], error["msg"]) for error in caught.value.errors()]


def unknown(count: int) -> dict[str, Any]:
    return {f"field {i}": 0 for i in range(count)}


@pytest.mark.parametrize("count", [1, 128])
def test_of_some_unknown_fields_each_is_named(count: int) -> None:
    found = faults({"name": "line 3", **unknown(count)})
    assert found == [((f"field {i}",), "Extra inputs are not permitted") for i in range(count)]


def test_very_many_are_one_error_wherever_they_are() -> None:
    told = "Value error, has 30,000 fields; known are"
    assert faults(unknown(30_000)) == [((), f"{told} name, inner")]
    assert faults({"inner": unknown(30_000)}) == [(("inner",), f"{told} width")]


@pytest.mark.parametrize("value", [None, [], "text", b"bytes", [0] * 1000])
def test_what_is_no_object_is_told_as_ever(value: Any) -> None:
    [(where, what)] = faults(value)
    assert where == ()
    assert what.startswith("Input should be a valid dictionary")
