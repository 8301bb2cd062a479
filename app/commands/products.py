"""`flowgauge products`: the products of a server and the images that they are taught with."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from app.client import Client, Product, ProductImage, Verdict
from app.commands.options import SERVER_URL, AsJson, Authority, Key, ServerUrl

_FILES: Final = 20  # of one request
_BYTES: Final = 64 * 2**20

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")

Name = Annotated[str, typer.Argument(help="Product, e.g. bottle.")]


@app.callback()
def products() -> None:
    """List, create, fill, export and delete the products of a server."""


# Heavy modules are imported inside the commands: torch takes seconds, and --help must not.


@app.command("list")
def list_products(
    as_json: AsJson = False, url: ServerUrl = SERVER_URL, key: Key = None, ca: Authority = None
) -> None:
    """List the products with their images and active versions."""
    with Client(url, key, ca=ca) as client:
        found = client.products()
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in found], indent=1))
        return
    for product in found:
        typer.echo(_describe(product))


@app.command("create")
def create(
    name: Name,
    manual: Annotated[
        bool, typer.Option("--manual", help="New versions serve only after somebody activates them.")
    ] = False,
    url: ServerUrl = SERVER_URL,
    key: Key = None,
    ca: Authority = None,
) -> None:
    """Create a product without images."""
    with Client(url, key, ca=ca) as client:
        typer.echo(_describe(client.create_product(name, takeover="manual" if manual else "automatic")))


@app.command("add")
def add(
    name: Name,
    folder: Annotated[
        Path, typer.Argument(help="Folder with images, at any depth.", exists=True, file_okay=False)
    ],
    label: Annotated[Verdict, typer.Option(help="Label of the images.")] = "good",
    kind: Annotated[str | None, typer.Option(help="Kind of defect; a new one is added.")] = None,
    url: ServerUrl = SERVER_URL,
    key: Key = None,
    ca: Authority = None,
) -> None:
    """Add the images of a folder on this machine. Exit code 1: some were refused.

    An image that the product has already keeps its label.
    """
    if kind is not None and label == "good":
        raise typer.BadParameter("a good image has no kind of defect", param_hint="--kind")
    counts: Counter[str] = Counter()
    with Client(url, key, ca=ca) as client:
        product = client.product(name)
        if kind is not None and kind not in product.kinds:
            kinds = [*product.kinds, kind]
            client.change_product(name, kinds=kinds, expected_revision=product.revision)
        for batch in _batches(folder):
            stored = client.add_images(name, batch, label=label, kind=kind)
            counts.update(stored.counts)
            for item in stored.items:
                if item.problem is not None:
                    typer.echo(f"{item.filename}: {item.problem.detail}", err=True)
            product = stored.product
    if not counts:
        raise typer.BadParameter(f"{folder} has no images", param_hint="FOLDER")
    typer.echo(", ".join(f"{number} {status}" for status, number in sorted(counts.items())))
    typer.echo(_describe(product))
    if set(counts) - {"stored", "duplicate"}:
        raise typer.Exit(1)


@app.command("export")
def export(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Receives a folder named after the product.")],
    url: ServerUrl = SERVER_URL,
    key: Key = None,
    ca: Authority = None,
) -> None:
    """Write the images that are not excluded as a folder for `flowgauge train --data FOLDER`.

    Images that the folder has already are not read again.
    """
    from app.history.inspection_files import detect_format
    from app.history.training_set import PARTS_FILE
    from app.products.folders import name_of, place_of
    from flows.fastflow.calibration.images_per_part import PARTS
    from flows.fastflow.files.atomic_files import replace_file

    target, images = folder / name, list[ProductImage]()
    with Client(url, key, ca=ca) as client:
        client.product(name)
        for image in client.product_images(name, excluded=False):
            images.append(image)
            place = target / place_of(image)
            if not any(place.glob(name_of(image, "*"))):
                data = client.product_image(name, image.sha256)
                replace_file(place / name_of(image, detect_format(data).suffix), data, sync=False)
    if any(image.part_id for image in images):
        replace_file(target / PARTS, PARTS_FILE.encode(), sync=False)
    typer.echo(f"{target}: {len(images)} images")


@app.command("delete")
def delete(
    name: Name,
    reason: Annotated[
        str | None, typer.Option(help="Reason for the audit log; needed if the product has versions.")
    ] = None,
    url: ServerUrl = SERVER_URL,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    key: Key = None,
    ca: Authority = None,
) -> None:
    """Delete a product with all its images; its versions and inspections stay."""
    if not yes:
        typer.confirm(f"Delete {name} with all its images? They cannot be restored.", abort=True)
    with Client(url, key, ca=ca) as client:
        client.delete_product(name, reason=reason)
    typer.echo(f"{name} is deleted")


def _batches(folder: Path) -> Iterator[dict[str, Path]]:
    """Yield the images of a folder by relative name, some at a time."""
    from flows.fastflow.files.plain_files import escape_name
    from flows.fastflow.imaging.image_files import find_image_files

    batch: dict[str, Path] = {}
    size = 0
    for name, path in find_image_files(folder).items():
        bytes_ = path.stat().st_size
        if batch and (len(batch) == _FILES or size + bytes_ > _BYTES):
            yield batch
            batch, size = {}, 0
        batch[escape_name(name)] = path
        size += bytes_
    if batch:
        yield batch


def _describe(product: Product) -> str:
    images = product.images
    parts = [f"{images.good} good", f"{images.defect} defect", f"{images.excluded} excluded"]
    return f"{product.name}  {', '.join(parts)}; {product.active or 'no version serves'}"
