"""The benchmark of the path and its floor: pictures and figures are what they are said to be."""

import argparse
import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="the floor needs the extra bench")

from bench.floor import Floor
from bench.request_path import Measured, RefusedError, encoded, send
from flows.fastflow.images import decode
from tests.conftest import picture, png


@pytest.mark.parametrize(("name", "signature"), [("jpeg", b"\xff\xd8\xff"), ("png", b"\x89PNG")])
def test_a_picture_is_encoded_as_asked(tmp_path: Path, name: str, signature: bytes) -> None:
    original = picture(0)
    (tmp_path / "part.png").write_bytes(png(original))
    file = encoded(tmp_path / "part.png", original.shape[0], name)
    assert file.startswith(signature)
    pixels = decode(file)
    assert pixels.shape == (original.shape[0], original.shape[0], 3)
    assert np.abs(pixels.astype(int) - original).mean() < (1 if name == "png" else 20)  # RGB, not BGR


def test_ratios_are_of_each_round() -> None:
    measured = Measured([2, 30, 4], [4, 60, 8], [1, 10, 2], [5, 5, 5], [5, 1, 5], [4, 4, 4])
    figures = measured.figures()
    assert (figures["cpu_ratio"], figures["stored_cpu_ratio"], figures["latency_ratio"]) == (2, 4, 1)
    assert figures["served_cpu"] == 4


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers every second request 503."""
    loop = asyncio.new_event_loop()
    answers = iter([b"200 OK", b"503 No"] * 1000)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: 4\r\n\r\nwhy?" % next(answers))
        writer.close()

    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_refusal_is_no_measurement(port: int) -> None:
    with pytest.raises(RefusedError, match="answered 503: b'why"):
        send(port, "/predict", b"", "image/jpeg", argparse.Namespace(clients=1, seconds=60))


@pytest.fixture(scope="module")
def floor() -> Floor:
    return Floor(64, threads=1)


class TestFloor:
    def test_gives_the_maps_of_all_stages(self, floor: Floor) -> None:
        files = [png(picture(i)) for i in range(3)]
        together = [maps.copy() for maps in floor.run(files)]
        assert [maps.shape for maps in together] == [(3, 40, 8, 8), (3, 112, 4, 4), (3, 320, 2, 2)]
        for one, maps in zip(floor.run(files[2:]), together, strict=True):
            np.testing.assert_allclose(one[0], maps[2], atol=0.05 * np.abs(maps).max())
        assert not np.allclose(together[0][0], together[0][1])

    def test_costs_something(self, floor: Floor) -> None:
        cost = floor.cost([png(picture(0))], batch=2, seconds=0.01)
        assert cost.cpu > 0
        assert cost.wall > 0

    def test_costs_what_all_its_pictures_took(self, floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
        runs: list[int] = []
        run = floor.run

        def counted(files: Sequence[bytes]) -> object:
            runs.append(len(files))
            return run(files)

        monkeypatch.setattr(floor, "run", counted)
        begun = time.perf_counter()
        cost = floor.cost([png(picture(0))], batch=8, seconds=0.01)
        measured = sum(runs[1:])  # the first is to warm up
        assert cost.wall * measured <= time.perf_counter() - begun

    def test_refuses_what_is_no_picture(self, floor: Floor) -> None:
        with pytest.raises(ValueError, match="no picture that cv2 reads"):
            floor.run([b"nothing"])
