"""Names of new versions."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from safetensors.torch import save
from torch import Tensor


def name_version(folder: Path, tensors: Mapping[str, Tensor]) -> tuple[datetime, str]:
    """Choose the time and the name of a new version: the time and a digest of the weights.

    Args:
        folder: the category's folder, models/<category>.
        tensors: the weights.
    """
    created = datetime.now(UTC)
    weights_id = hashlib.sha256(save(dict(tensors))).hexdigest()[:6]
    # The same weights may be published twice in a second, with other rates.
    while (folder / _name(created, weights_id)).exists():
        created += timedelta(seconds=1)
    return created, _name(created, weights_id)


def _name(created: datetime, weights_id: str) -> str:
    return f"{created:%Y%m%dT%H%M%S}-{weights_id}"
