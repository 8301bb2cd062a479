"""The calls for products and the images that they are taught with."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..schemas.history import Verdict
from ..schemas.products import (
    ChangedImages,
    ImageLabel,
    ImportedImages,
    NewImport,
    Product,
    ProductImagePage,
    ProductList,
    StoredImages,
    Takeover,
)
from .request import Call, Image, given, read_bytes, read_file, read_json, segment


def products() -> Call[list[Product]]:
    """List the products with their images and versions."""
    read = read_json(ProductList)
    return Call("GET", "/v1/products", lambda response: read(response).products)


def product(name: str) -> Call[Product]:
    """Read a product, with its jobs and findings."""
    return Call("GET", _product(name), read_json(Product))


def create_product(
    name: str, *, kinds: Sequence[str] = (), takeover: Takeover = "automatic"
) -> Call[Product]:
    """Create a product without images.

    Raises:
        ConflictError: it exists.
    """
    body = {"name": name, "kinds": list(kinds), "takeover": takeover}
    return Call("POST", "/v1/products", read_json(Product), {"json": body}, repeatable=False)


def change_product(
    name: str, *, expected_revision: int, kinds: Sequence[str] | None = None, takeover: Takeover | None = None
) -> Call[Product]:
    """Change a product's kinds of defect, or the way in which new versions take over.

    Raises:
        ConflictError: it was changed after `expected_revision`, or images have a kind that would go.
    """
    body = given({"kinds": None if kinds is None else list(kinds), "takeover": takeover})
    arguments = {"json": body, "headers": {"If-Match": f'"{expected_revision}"'}}
    return Call("PATCH", _product(name), read_json(Product), arguments, repeatable=False)


def delete_product(name: str, *, reason: str | None = None) -> Call[None]:
    """Delete a product with all its images; its versions and inspections stay.

    Raises:
        ConflictError: it has versions, and there is no reason.
    """
    arguments = {"params": given({"reason": reason})}
    return Call("DELETE", _product(name), lambda _: None, arguments, repeatable=False)


def add_images(
    name: str,
    images: Mapping[str, Image],
    *,
    label: Verdict = "good",
    kind: str | None = None,
    part_id: str | None = None,
) -> Call[StoredImages]:
    """Add named images to a product, at most 100. Each has its own status; some ten a call show progress.

    Raises:
        OSError: a file cannot be read.
    """
    files = [("file", (file, read_bytes(image))) for file, image in images.items()]
    params = given({"label": label, "kind": kind, "part_id": part_id})
    arguments = {"files": files, "params": params}
    return Call("POST", f"{_product(name)}/images", read_json(StoredImages), arguments)


def import_images(name: str, **what: Any) -> Call[ImportedImages]:
    """Add images of inspections, or of a folder on the server, 100 at a time.

    Args:
        what: inspections (ids) or folder; label, kind; cursor, the `next_cursor` of the page before.

    Raises:
        ValueError: the arguments do not fit together.
    """
    body = NewImport.model_validate(given(what)).model_dump(mode="json", exclude_none=True, by_alias=True)
    return Call("POST", f"{_product(name)}/images:import", read_json(ImportedImages), {"json": body})


def image_page(name: str, search: Mapping[str, Any], cursor: str | None) -> Call[ProductImagePage]:
    """Read a page of a product's images, the latest first."""
    params = given({**search, "limit": 500, "cursor": cursor})
    return Call("GET", f"{_product(name)}/images", read_json(ProductImagePage), {"params": params})


def product_image(name: str, sha256: str) -> Call[bytes]:
    """Read an image of a product, byte for byte."""
    return read_file(f"{_image(name, sha256)}/source", "image/")


def change_images(name: str, changes: Sequence[ImageLabel]) -> Call[ChangedImages]:
    """Change labels of images, or exclude them, all or none. `before` of the result undoes it."""
    body = {"changes": [change.model_dump(exclude_unset=True) for change in changes]}
    return Call("PATCH", f"{_product(name)}/images", read_json(ChangedImages), {"json": body})


def delete_image(name: str, sha256: str) -> Call[None]:
    """Delete an image of a product; to be able to undo it, exclude the image instead."""
    return Call("DELETE", _image(name, sha256), lambda _: None, repeatable=False)


def _product(name: str) -> str:
    return f"/v1/products/{segment(name)}"


def _image(name: str, sha256: str) -> str:
    return f"{_product(name)}/images/{segment(sha256)}"
