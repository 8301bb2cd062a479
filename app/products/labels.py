"""Labels of images: good, or a defect of a kind that the product has."""

import json
from typing import Any

from sqlalchemy import Row

from app.errors.problems import Problem
from app.schemas.history import Verdict
from app.schemas.products import ImageLabel


def require_kind(product: Row[Any], label: Verdict, kind: str | None) -> None:
    """Raise the problem invalid-request unless a label of the product may have the kind."""
    if kind is None:
        return
    if label == "good":
        raise Problem("invalid-request", f"A good image has no kind of defect; got {kind!r}.")
    if kind not in (kinds := json.loads(product.kinds)):
        known = ", ".join(map(repr, kinds)) or "none yet"
        raise Problem(
            "invalid-request",
            f"Product {product.name!r} has no kind {kind!r}; it has {known}. Add it to the product first.",
        )


def read_label(image: Row[Any]) -> ImageLabel:
    """Return the label of an image, in the form of a change."""
    return ImageLabel(image=image.sha256, label=image.label, kind=image.kind, excluded=image.excluded)


def edit_label(product: Row[Any], image: Row[Any], change: ImageLabel) -> dict[str, Any]:
    """Return the columns of a changed label.

    Raises:
        Problem: invalid-request if the kind does not belong to the product or to the label.
    """
    label = change.label or image.label
    kind = change.kind if "kind" in change.model_fields_set else image.kind
    if label == "good" and "kind" not in change.model_fields_set:
        kind = None
    if kind != image.kind:
        require_kind(product, label, kind)
    excluded = image.excluded if change.excluded is None else change.excluded
    return {"label": label, "kind": kind, "excluded": excluded}
