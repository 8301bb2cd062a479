"""Whether what is computed for several pictures at once is what is computed for one."""

import torch
from torch import Tensor


def are_alike(rows: Tensor, one: Tensor, differ: float) -> bool:
    """Compare every row with the only one; False also where one of them has what is no finite number.

    Args:
        rows: (n, ...).
        one: (1, ...).
        differ: by what share of its norm a row may differ, for it is rounded in another order.
    """
    distances = torch.linalg.vector_norm((rows.float() - one.float()).reshape(len(rows), -1), dim=1)
    near = distances <= differ * torch.linalg.vector_norm(one.float())
    return bool((near & distances.isfinite()).all())
