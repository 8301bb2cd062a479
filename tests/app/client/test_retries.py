import pytest

from app.client import errors
from app.client.retries import Attempts
from app.schemas.problem import ProblemDetails
from tests.app.client.conftest import Clock


def problem(status: int, retry_after: float | None = None) -> errors.ProblemError:
    details = ProblemDetails(type="t", title="", status=status, detail="d", instance="", request_id="")
    return errors.to_problem(details, retry_after)


def test_the_server_says_when() -> None:
    clock = Clock()
    attempts = Attempts(10, repeatable=False, clock=clock)
    assert attempts.pause(problem(503, 7)) == 7
    clock.now += 4
    with pytest.raises(errors.BusyError):  # would end after the patience
        attempts.pause(problem(503, 7))
    assert attempts.pause(problem(503, 6)) == 6


def test_pauses_grow_up_to_a_limit() -> None:
    attempts = Attempts(1e9, repeatable=True, clock=Clock())
    pauses = [attempts.pause(errors.UnreachableError("", sent=True)) for _ in range(40)]
    assert 0.05 <= pauses[0] <= 0.1
    assert all(0.05 <= pause <= 5 for pause in pauses)
    assert all(2.5 <= pause <= 5 for pause in pauses[10:])
    assert len(set(pauses)) > 30


@pytest.mark.parametrize(
    ("error", "repeatable", "again"),
    [
        (problem(503), False, True),
        (problem(408), False, True),
        (errors.UnreachableError("", sent=False), False, True),
        (errors.UnreachableError("", sent=True), False, False),
        (errors.UntrustedError("", sent=False), True, False),
        (errors.UnreachableError("", sent=True), True, True),
        (errors.UnexpectedAnswerError("", 502), True, True),
        (errors.UnexpectedAnswerError("", 502), False, False),
        (errors.UnexpectedAnswerError("", 408), True, True),
        (errors.UnexpectedAnswerError("", 500), True, False),
        (errors.UnexpectedAnswerError("", 413), True, False),
        (problem(500), True, False),
        (problem(504), True, False),
        (problem(422), True, False),
        (problem(409), True, False),
    ],
)
def test_what_is_sent_again(error: errors.FlowGaugeError, repeatable: bool, again: bool) -> None:
    attempts = Attempts(10, repeatable=repeatable, clock=Clock())
    if again:
        assert attempts.pause(error) > 0
        return
    with pytest.raises(type(error)) as caught:
        attempts.pause(error)
    assert caught.value is error
