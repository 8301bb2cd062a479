"""Jobs by the clients and by `flowgauge jobs`, against a server whose jobs run a script."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from app.client import AsyncClient, Client, ConflictError, Job, JobLines, NotFoundError
from app.commands.jobs import app as command
from app.jobs import runner
from app.main import create_app
from app.schemas.products import NewProduct
from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.jobs.conftest import Script


@pytest.fixture
def service(tmp_path: Path) -> FastAPI:
    (tmp_path / "models").mkdir()
    return create_app(Settings(models=tmp_path / "models", history=tmp_path / "history"))


@pytest.fixture
def url(
    service: FastAPI, serve_http: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setattr(runner, "_PAUSE_SECONDS", 0.01)
    with serve_http(service) as url:
        service.state.products.create(NewProduct(name="bottle"))
        code = "tell('line', text='hello'); progress(.5); wait(); tell('result', summary={'recall': 1})"
        service.state.jobs._commands = Script(tmp_path, code)
        yield url


def states(news: list[Job | JobLines]) -> set[str]:
    return {one.state for one in news if isinstance(one, Job)}


def test_client_starts_follows_and_cancels(url: str) -> None:
    with Client(url) as client:
        job = client.start_job("train", "bottle", epochs=3, preset=None)
        assert job.settings == {"epochs": 3}
        stream = client.follow_job(job.id)
        while not isinstance(next(stream), JobLines):
            pass
        assert client.cancel_job(job.id).state == "cancelled"
        assert "cancelled" in states([*stream])
        with pytest.raises(ConflictError, match="The job is cancelled"):
            client.cancel_job(job.id)
        assert [one.id for one in client.jobs("bottle", state=["cancelled", "failed"])] == [job.id]
        assert client.jobs("grid") == client.jobs(state=["queued"]) == []
        assert client.job(job.id).lines == ["hello"]
        with pytest.raises(NotFoundError, match="No job has this id"):
            [*client.follow_job("none")]
        with pytest.raises(NotFoundError, match="evaluated no version"):
            client.job_report(job.id)


@pytest.mark.anyio
async def test_asynchronous_client_follows_to_the_end(url: str, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    async with AsyncClient(url) as client:
        job = await client.start_job("evaluate", "bottle")
        news = [news async for news in client.follow_job(job.id)]
    assert isinstance(news[-1], Job)
    assert (news[-1].state, news[-1].result) == ("succeeded", {"summary": {"recall": 1}})


def run(url: str, *arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(command, [*arguments, "--url", url])
    assert done.exit_code == code, done.output
    return done


def test_command_line(url: str, tmp_path: Path) -> None:
    job_id = run(url, "start", "train", "--product", "bottle", "--epochs", "2").stdout.strip()
    cancelled = run(url, "cancel", job_id).stdout
    assert cancelled == "cancelled\n"
    assert run(url, "follow", job_id, code=1).stdout.splitlines()[-1] == "cancelled"
    (tmp_path / "go").touch()
    followed = run(url, "start", "evaluate", "--product", "bottle", "--follow").stdout.splitlines()
    assert followed[1:] == ["hello", "succeeded"]
    shown: dict[str, Any] = json.loads(run(url, "show", followed[0], "--json").stdout)
    assert (shown["state"], shown["lines"]) == ("succeeded", ["hello"])
    assert run(url, "show", followed[0]).stdout == "hello\nsucceeded\n"
    listed = run(url, "list", "--product", "bottle").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [followed[0], job_id]
    assert [one["id"] for one in json.loads(run(url, "list", "--json").stdout)] == [followed[0], job_id]
