"""An image that is asked about: what the server is told, and whose fault it is when there is no answer."""

import os
import re
from pathlib import Path

import pytest

from app.client import Client, Inspection
from app.client.watch.folder import CompleteFile, Stamp
from app.client.watch.job import AllImagesWaitError, ImageWaitsError
from app.errors import problems
from tests.app.client.conftest import Network, problem
from tests.app.client.watch.conftest import job

Images = dict[str, list[bytes]]
PAGE = "<html>nginx</html>"


def found(name: str) -> CompleteFile:
    return CompleteFile(name, Path(name), Stamp(1, 2, 3), 1.0)


@pytest.mark.parametrize(
    ("part", "name", "expected"),
    [
        (r"(\d+)", "2026/11/30/P-17_top.png", "17"),
        (r"(\d+)", "2026/11/30/top.png", "2026"),
        (r"(\d+)[^/]*$", "2026/11/30/top.png", None),
        (r"^P-(\d+)", "2026/11/30/P-17_top.png", "17"),
        (r"/(\d+)/", "2026/11/30/P-17_top.png", "11"),
        (r"^2026/11/(.*)\.", "2026/11/30/8.png", "30/8"),
        (r"^(P-\d+)?", "top.png", None),
        (r"(P.*)_", os.fsdecode(b"P\xfc_1.png"), r"P\udcfc"),
    ],
)
def test_part_is_searched_in_the_name_then_the_path(
    client: Client, tmp_path: Path, tiny_images: Images, part: str, name: str, expected: str | None
) -> None:
    """As cameras make a folder a day, whose numbers are those of no part where the name has one."""
    one = job(tmp_path, "parts", part=re.compile(part))
    result = one.inspect(client, found(name), tiny_images["good"][0], "identity").result
    assert isinstance(result, Inspection)
    assert (result.part_id, result.station) == (expected, "parts")


def test_repeated_request_is_inspected_once(client: Client, tmp_path: Path, tiny_images: Images) -> None:
    """Unless it has another name, content, folder, station or part."""
    first, second = tiny_images["good"][:2]
    one, other = job(tmp_path, "again", overlay=True), job(tmp_path, "elsewhere")
    parts = job(tmp_path, "again", part=re.compile("(a)"))

    def inspect(one: object, *arguments: object) -> str:
        result = one.inspect(client, *arguments).result  # type: ignore[attr-defined]
        return str(result.inspection_id)

    same = (found("a.png"), first, "identity")
    made = {inspect(one, *same) for _ in range(3)}
    assert len(made) == 1
    assert inspect(job(tmp_path, "again"), *same) in made  # without the overlay
    made.add(inspect(one, found("b.png"), first, "identity"))
    made.add(inspect(one, found("a.png"), second, "identity"))
    made.add(inspect(one, found("a.png"), first, "another"))
    made.add(inspect(other, *same))
    made.add(inspect(parts, *same))
    assert len(made) == 6


def test_overlay_is_written_on_request(client: Client, tmp_path: Path, tiny_images: Images) -> None:
    for wanted in (True, False):
        one = job(tmp_path, "overlay", overlay=wanted)
        outcome = one.inspect(client, found(f"{wanted}.png"), tiny_images["good"][0], "identity")
        assert (outcome.overlay or b"").startswith(b"\x89PNG") is wanted


@pytest.mark.parametrize(
    "name",
    ["unsupported-media-type", "undecodable-image", "invalid-request", "too-large", "idempotency-key-reused"],
)
def test_problem_of_the_image_is_its_outcome(
    client: Client, network: Network, tmp_path: Path, name: problems.ProblemName
) -> None:
    network.refuse(problem(name))
    result = job(tmp_path, "x").inspect(client, found("a.png"), b"x", "identity").result
    assert not isinstance(result, Inspection)
    assert result.type == name


@pytest.mark.parametrize(
    "refusal",
    [
        problem("internal"),
        problem("deadline-exceeded"),
        problem("upload-stalled"),
        problem("unknown-inspection"),
        problem("files-lost"),
        (413, PAGE),
        (502, PAGE),
        None,
    ],
)
def test_problem_of_one_image_delays_only_that_image(
    client: Client, network: Network, tmp_path: Path, refusal: tuple[int, str] | None
) -> None:
    network.refuse(refusal)
    with pytest.raises(ImageWaitsError, match=r"a\.png: "):
        job(tmp_path, "x").inspect(client, found("a.png"), b"x", "identity")


@pytest.mark.parametrize(
    "refusal",
    [
        problem("queue-full"),
        problem("draining"),
        problem("history-unavailable"),
        problem("unauthenticated"),
        problem("unknown-model"),
        problem("rejected-bundle"),
        problem("method-not-allowed"),
    ],
)
def test_problem_of_the_server_stops_all_images(
    client: Client, network: Network, tmp_path: Path, refusal: tuple[int, str]
) -> None:
    network.refuse(refusal)
    with pytest.raises(AllImagesWaitError):
        job(tmp_path, "x").inspect(client, found("a.png"), b"x", "identity")


@pytest.mark.parametrize("refusal", [None, (502, PAGE), (413, PAGE), (200, PAGE)])
def test_missing_server_stops_all_images(
    client: Client, network: Network, tmp_path: Path, refusal: tuple[int, str] | None
) -> None:
    network.refuse(refusal, lambda *_: True)
    with pytest.raises(AllImagesWaitError):
        job(tmp_path, "x").inspect(client, found("a.png"), b"x", "identity")
