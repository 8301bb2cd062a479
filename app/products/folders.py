"""Folders of datasets for the command line, and what its data check finds in them.

    <parent>/<product>/train/good/<part>_<sha256>.png    images to learn from
    <parent>/<product>/test/good/<part>_<sha256>.png     those that `test_good` selects
    <parent>/<product>/test/<kind>/<part>_<sha256>.png   defects; "defect" without a kind
    <parent>/<product>/parts.txt                         only with named parts

A name follows from image and part alone. So a run on the same images has the same identity.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Row

from app.errors.problems import Problem
from app.history.training_set import PARTS_FILE, part_prefix
from app.products.products import Products
from app.schemas.products import ImageFinding, ProductImage
from flows.fastflow.calibration.images_per_part import PARTS

_UNKNOWN_KIND: Final = "defect"
_MAX_OTHERS: Final = 10  # of a finding, which may name all images
_SHA256: Final = re.compile(r"([0-9a-f]{64})\.[a-z]+$")


def make_folder(
    products: Products, product: str, parent: Path, test_good: Callable[[str], bool] = lambda _: False
) -> None:
    """Make a folder of hard links to the images that are not excluded, in the layout of MVTec AD.

    Args:
        parent: receives the folder, named after the product.
        test_good: tells by the SHA-256 if a good image is for the test, and not to learn from.

    Raises:
        Problem: unknown-product; files-lost if a file is missing or cut off.
        StoreUnavailable: the store of the images does not answer.
        OSError: the disk is full.
    """
    images = products.images.included(product)
    folder = parent / product
    (folder / "train" / "good").mkdir(parents=True)
    targets: dict[Path, Row[Any]] = {}
    for image in images:
        is_test = image.label == "good" and test_good(image.sha256)
        target = folder / ("test/good" if is_test else place_of(image)) / name_of(image, image.suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        targets[target] = image
    if (lost := products.images.files.provide(product, targets)) is not None:
        raise Problem(
            "files-lost",
            f"The image {lost.name!r} is missing or damaged on the server's disk. Exclude or delete "
            "it, or restore a backup.",
        )
    if any(image.part_id for image in images):
        (folder / PARTS).write_text(PARTS_FILE, encoding="utf-8")


def place_of(image: Row[Any] | ProductImage) -> str:
    """Return the folder of an image in the layout, unless it is a good one of the test."""
    return "train/good" if image.label == "good" else f"test/{image.kind or _UNKNOWN_KIND}"


def name_of(image: Row[Any] | ProductImage, suffix: str) -> str:
    return f"{part_prefix(image.part_id)}{image.sha256}.{suffix}"


def find_sha256(file: str) -> str | None:
    """Return the SHA-256 in the name of a file that `make_folder` has made; None for another file."""
    match = _SHA256.search(file)
    return match and match[1]


def record_check(products: Products, product: str, check: Mapping[str, Any]) -> None:
    """Replace the findings of a product's images by those of `flowgauge data check --json`.

    Raises:
        Problem: unknown-product.
    """
    names = {image.sha256: image.name for image in products.images.included(product)}
    findings: defaultdict[str, list[ImageFinding]] = defaultdict(list)
    for found in check["findings"]:
        files = {sha256: file for file in found["files"] if (sha256 := find_sha256(file))}
        message = found["message"]
        for sha256, file in files.items():
            message = message.replace(file, names.get(sha256, "another image"))
        first = sorted(files)[: _MAX_OTHERS + 1]
        for sha256 in files:
            findings[sha256].append(
                ImageFinding(
                    kind=found["kind"],
                    severity=found["severity"],
                    message=message,
                    measure=found["measure"],
                    others=[other for other in first if other != sha256][:_MAX_OTHERS],
                )
            )
    products.images.set_findings(product, findings)
