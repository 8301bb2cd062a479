"""`flowgauge predict`: inspect a file or a folder, here or by a server."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from app.commands import remote

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True)
class Finding:
    """What was said of one image; the overlay is the bytes of a PNG, if one was asked for."""

    score: float
    decision: str
    p_value: float
    version: str
    overlay: bytes | None


class NotInspectedError(ValueError):
    """An image could not be inspected, or none because no server answers; the message is for people."""


Inspect = Callable[[bytes], Finding]


def predict(
    path: Annotated[Path, typer.Argument(help="An image, or a folder with images at any depth.")],
    category: Annotated[str, typer.Option(help="Which model, e.g. bottle.")],
    version: Annotated[str | None, typer.Option(help="A version. Without it, the active one.")] = None,
    models: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_MODELS", help="Folder of the published models.")
    ] = Path("models"),
    threads: Annotated[int, typer.Option(help="CPU threads; a server has its own.", min=1)] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; a server has its own.")] = "auto",
    url: Annotated[
        str | None,
        typer.Option(help="Ask the server there instead, e.g. http://127.0.0.1:8000."),
    ] = None,
    key: remote.Key = None,
    ca: remote.Authority = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for overlays: the image with its heatmap over it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per line.")] = False,
) -> None:
    """Inspect images: score, decision and p-value of each.

    A high score is an anomaly; the p-value is the share of good parts that score at least as high.

    Exit codes: 0 when every image was inspected, whatever the decisions; 1 when one could not be
    (the others are inspected all the same), or the model or the server could not be used; 2 when what was
    asked for is wrong.
    """
    from flows.fastflow.images import IMAGE_SUFFIXES

    files = _files(path, out, IMAGE_SUFFIXES)
    errors = Console(stderr=True)
    findings: dict[str, Finding] = {}
    failures: dict[str, str] = {}
    drawn = out is not None
    if url is None:
        connection = _local(models, category, version, threads, device, drawn)
    else:
        connection = _remote(url, key, ca, category, version, drawn)
    with connection as inspect:
        steps = track(files.items(), "Inspecting", console=errors, transient=True, disable=as_json)
        for name, file in steps:
            try:
                finding = findings[name] = inspect(file.read_bytes())
                if out is not None and finding.overlay is not None:
                    overlay = out / f"{name}.overlay.png"
                    overlay.parent.mkdir(parents=True, exist_ok=True)
                    overlay.write_bytes(finding.overlay)
            except OSError as error:
                failures[name] = error.strerror or str(error)
            except NotInspectedError as error:
                failures[name] = str(error)
            if as_json:
                typer.echo(_json_line(name, findings.get(name), failures.get(name)))
    if not as_json:
        Console().print(_table(findings))
        for name, reason in failures.items():
            typer.secho(f"{name}: {reason}", fg="red", err=True)
    if failures:
        typer.secho(f"{len(failures)} of {len(files)} not inspected", fg="red", err=True)
        raise typer.Exit(1)


def _files(path: Path, out: Path | None, suffixes: frozenset[str]) -> dict[str, Path]:
    """The images by the name they are reported under; overlays of an earlier run are not images."""
    if path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise typer.BadParameter(f"there is no file or folder {path}", param_hint="PATH")
    files = {
        file.relative_to(path).as_posix(): file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in suffixes
        and file.is_file()
        and (out is None or not file.resolve().is_relative_to(out.resolve()))
    }
    if not files:
        kinds = " ".join(sorted(suffixes))
        raise typer.BadParameter(f"{path} holds no images ({kinds})", param_hint="PATH")
    return files


@contextmanager
def _local(
    models: Path, category: str, version: str | None, threads: int, device: str, drawn: bool
) -> Iterator[Inspect]:
    # Here and not above: torch takes seconds, which --help and --url should not.
    import torch

    from flows.fastflow import bundle, heatmap, images
    from flows.fastflow.detector import Detector

    try:
        folder = bundle.resolve(models, category, version)
    except bundle.UnknownModelError as error:
        raise typer.BadParameter(str(error), param_hint=_asked_for(version)) from error
    torch.set_num_threads(threads)
    detector = Detector.load(folder, device=device)

    def inspect(data: bytes) -> Finding:
        try:
            image = images.decode(data)
        except images.ImageError as error:
            raise NotInspectedError(str(error)) from error
        [prediction] = detector.predict([image])
        overlay = None
        if drawn:
            picture = heatmap.overlay(image, prediction.score_map, detector.colour_scale)
            overlay = heatmap.encode_png(picture)
        used = detector.manifest.version
        return Finding(prediction.score, prediction.decision, prediction.p_value, used, overlay)

    yield inspect


@contextmanager
def _remote(
    url: str, key: str | None, ca: Path | None, category: str, version: str | None, drawn: bool
) -> Iterator[Inspect]:
    import ssl

    import httpx

    from app.settings import is_loopback

    address = f"{url.rstrip('/')}/v1/models/{quote(category, safe='')}"
    path = "predict" if version is None else f"versions/{quote(version, safe='')}/predict"
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL as error:
        raise typer.BadParameter(f"{url!r}: {error}", param_hint="--url") from error
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise typer.BadParameter(f"{ca} is no readable PEM file: {error}", param_hint="--ca") from error
    key = key.strip() if key else ""
    if not (key.isascii() and (key.isprintable() or not key)):
        raise typer.BadParameter("that is no key: keys begin with fg_", param_hint="--key")
    headers = {"X-API-Key": key} if key else {}
    # A proxy that the environment names for the world outside does not know this machine's own addresses.
    client = httpx.Client(headers=headers, timeout=60, trust_env=not is_loopback(host), verify=context)
    with closing(client):
        try:
            response = client.get(address)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise typer.BadParameter(f"{url!r}: {error}", param_hint="--url") from error
        except httpx.HTTPError as error:
            raise NotInspectedError(
                f"no answer from {url} ({error}). Start a server there: flowgauge serve"
            ) from error
        answer = _object(response)
        if answer.get("type") == "unknown-model":
            raise typer.BadParameter(str(answer.get("detail")), param_hint="--category")
        if answer.get("type") in ("unauthenticated", "forbidden", "rate-limited"):
            raise typer.BadParameter(str(answer.get("detail")), param_hint="--key")
        if not response.is_success or "category" not in answer:
            raise typer.BadParameter(
                f"{url} is no FlowGauge server: status {response.status_code} for {address}",
                param_hint="--url",
            )
        there = [item["version"] for item in answer["versions"]]
        if version is not None and version not in there:
            raise typer.BadParameter(
                f"{category!r} has no version {version!r}; there are: {', '.join(there)}",
                param_hint=_asked_for(version),
            )

        def inspect(data: bytes) -> Finding:
            try:
                response = client.post(
                    f"{address}/{path}",
                    params={"inline": "overlay"} if drawn else {},
                    content=data,
                    headers={"Content-Type": "application/octet-stream"},
                )
            except httpx.HTTPError as error:
                raise NotInspectedError(f"no answer from the server: {error}") from error
            answer = _object(response)
            if not response.is_success:
                reason = answer.get("detail", f"status {response.status_code}")
                raise NotInspectedError(str(reason))
            overlay = base64.b64decode(answer["inline"]["overlay"]) if drawn else None
            used = answer["model"]["version"]
            return Finding(answer["score"], answer["decision"], answer["p_value"], used, overlay)

        yield inspect


def _asked_for(version: str | None) -> str:
    return "--category" if version is None else "--version"


def _object(response: "httpx.Response") -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _json_line(name: str, finding: Finding | None, failure: str | None) -> str:
    if failure is not None or finding is None:
        return json.dumps({"file": name, "error": failure})
    return json.dumps(
        {
            "file": name,
            "score": finding.score,
            "decision": finding.decision,
            "p_value": finding.p_value,
            "version": finding.version,
        }
    )


def _table(findings: dict[str, Finding]) -> Table:
    rejected = sum(finding.decision == "REJECT" for finding in findings.values())
    table = Table(caption=f"{len(findings)} inspected, {rejected} rejected")
    table.add_column("File", overflow="fold")
    table.add_column("Score", justify="right")
    table.add_column("Decision")
    table.add_column("p-value", justify="right")
    for name, finding in findings.items():
        style = "red" if finding.decision == "REJECT" else "green"
        decision = f"[{style}]{finding.decision}[/]"
        table.add_row(Text(name), f"{finding.score:.4f}", decision, f"{finding.p_value:.4f}")
    return table
