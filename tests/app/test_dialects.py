import pytest

from app import dialects
from app.problems import TYPES
from app.schemas.problem import ProblemDetails


def details(name: str, status: int) -> ProblemDetails:
    return ProblemDetails(
        type=name, title="t", status=status, detail="what was wrong", instance="/p", request_id="r"
    )


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/models", dialects.PROBLEMS),
        ("/", dialects.PROBLEMS),
        ("/v22", dialects.PROBLEMS),
        ("/x\n/v2/", dialects.PROBLEMS),
        ("/2020-11-20", dialects.PROBLEMS),
        ("/2020-11-20/projects/a/models/1/detect", dialects.LOOKOUT),
        ("/2020-11-20/\n", dialects.LOOKOUT),
        ("/v2", dialects.OPEN_INFERENCE),
        ("/v2/health/ready", dialects.OPEN_INFERENCE),
    ],
)
def test_who_reads_what(path: str, dialect: dialects.Dialect) -> None:
    assert dialects.of(path) is dialect


@pytest.mark.parametrize("name", TYPES)
def test_every_problem_can_be_told(name: str) -> None:
    kind = next(row for key, row in TYPES.items() if key == name)
    problem = details(name, kind.status)
    assert dialects.PROBLEMS.tell(problem).body == problem.model_dump()
    v2 = dialects.OPEN_INFERENCE.tell(problem)
    assert (v2.status, v2.body) == (kind.status, {"error": f"what was wrong ({name})"})
    lookout = dialects.LOOKOUT.tell(problem)
    assert lookout.body["Message"] == "what was wrong"
    # What may work later stays so, as does what is the server's fault: its clients try 429 and 5xx again.
    later = kind.status >= 429 or kind.retry_after is not None or name == "rejected-bundle"
    assert (lookout.status >= 429) == later or name == "precondition-required"
