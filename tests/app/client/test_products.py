"""Products by the clients and by `flowgauge products`, against a server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.client import AsyncClient, Client, ConflictError, ImageLabel, NotFoundError
from app.commands.products import app as command
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import Serve
from tests.conftest import picture, png
from tests.support.odd_names import ESCAPED, renamed
from training.data import layout


@pytest.fixture
def url(tmp_path: Path, serve_http: Serve) -> Iterator[str]:
    models = tmp_path / "models"
    models.mkdir()
    with serve_http(create_app(Settings(models=models, import_folders=str(tmp_path)))) as url:
        yield url


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with 21 images, of which one is broken and two are the same."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i:02}.png").write_bytes(png(picture(min(i, 18))))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_client_teaches_a_product(url: str, images: Path) -> None:
    with Client(url) as client:
        product = client.create_product("cap", kinds=["dent"], takeover="manual")
        with pytest.raises(ConflictError, match="'cap' already"):
            client.create_product("cap")
        product = client.change_product("cap", expected_revision=product.revision, kinds=["dent", "hole"])
        assert (product.kinds, product.takeover) == (["dent", "hole"], "manual")
        data = (images / "00.png").read_bytes()
        stored = client.add_images("cap", {"a.png": data}, label="defect", kind="dent", part_id="P-1")
        assert stored.counts == {"stored": 1}
        imported = client.import_images("cap", folder=str(images))
        assert imported.counts == {"stored": 18, "duplicate": 2, "unsupported": 1}
        assert imported.next_cursor is None
        [image] = client.product_images("cap", label="defect")
        assert (image.name, image.kind, image.part_id) == ("a.png", "dent", "P-1")
        assert client.product_image("cap", image.sha256) == data
        changed = client.change_images("cap", [ImageLabel(image=image.sha256, label="good")])
        assert (changed.images[0].label, changed.images[0].kind) == ("good", None)
        assert client.change_images("cap", changed.before).images == [image]
        client.delete_image("cap", image.sha256)
        assert [one.name for one in client.products()] == ["cap"]
        assert client.product("cap").images.good == 18
        client.delete_product("cap")
        with pytest.raises(NotFoundError, match="no product 'cap'"):
            client.product("cap")


@pytest.mark.anyio
async def test_asynchronous_client_iterates_over_images(url: str, images: Path) -> None:
    async with AsyncClient(url) as client:
        await client.create_product("cap")
        await client.add_images("cap", {"a": images / "00.png", "b": images / "01.png"})
        assert [image.name async for image in client.product_images("cap")] == ["b", "a"]


def run(url: str, *arguments: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(command, [*map(str, arguments), "--url", url])
    assert done.exit_code == code, done.output
    return done


def read_box(result: Result) -> str:
    return " ".join(result.stderr.replace("│", " ").split())  # what is wrong with an option is in a box


def test_name_that_is_no_text_is_escaped(url: str, images: Path) -> None:
    renamed(images / "00.png")
    run(url, "create", "cap")
    run(url, "add", "cap", images, code=1)
    with Client(url) as client:
        assert ESCAPED in [image.name for image in client.product_images("cap")]


def test_command_line(url: str, images: Path, tmp_path: Path) -> None:
    created = run(url, "create", "cap", "--manual").stdout
    assert created == "cap  0 good, 0 defect, 0 excluded; no version serves\n"
    added = run(url, "add", "cap", images, code=1)
    assert added.stdout.splitlines() == [
        "1 duplicate, 19 stored, 1 unsupported",
        "cap  19 good, 0 defect, 0 excluded; no version serves",
    ]
    assert added.stderr.startswith("broken.png: The file is not a PNG")
    dents, empty = tmp_path / "dents", tmp_path / "empty"
    dents.mkdir()
    empty.mkdir()
    (dents / "0.png").write_bytes(png(picture(90, defect=True)))
    run(url, "add", "cap", dents, "--label", "defect", "--kind", "dent")
    assert "has no images" in read_box(run(url, "add", "cap", empty, code=2))
    assert "no kind of defect" in read_box(run(url, "add", "cap", dents, "--kind", "dent", code=2))
    [listed] = json.loads(run(url, "list", "--json").stdout)
    assert (listed["kinds"], listed["images"]["defect"]) == (["dent"], 1)
    with Client(url) as client:
        client.add_images("cap", {"a.png": png(picture(50))}, part_id="P-1")
    for _ in range(2):
        assert (
            run(url, "export", "cap", tmp_path / "out").stdout == f"{tmp_path / 'out' / 'cap'}: 21 images\n"
        )
    assert len(layout.train_images(tmp_path / "out", "cap")) == 20
    assert [sample.defect for sample in layout.test_samples(tmp_path / "out", "cap")] == ["dent"]
    assert (tmp_path / "out" / "cap" / "parts.txt").is_file()
    assert "Aborted" in run(url, "delete", "cap", code=1).stderr
    assert run(url, "delete", "cap", "--yes").stdout == "cap is deleted\n"
    assert run(url, "list").stdout == ""
