"""Metrics of maps in a .npz file by anomalib, as JSON: the other half of `bench.metrics_reference`.

Run by an interpreter that has anomalib; nothing of FlowGauge is imported here.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch


def main() -> None:
    """Read maps and masks (N, H, W) from the file that is named, print anomalib's figures."""
    from anomalib.metrics import AUPIMO, AUPR, AUPRO, AUROC, F1Max

    with np.load(Path(sys.argv[1])) as file:
        maps, masks = torch.from_numpy(file["maps"]), torch.from_numpy(file["masks"]).int()
        scores, truth = torch.from_numpy(file["scores"]), torch.from_numpy(file["truth"]).int()
    found: dict[str, float] = {}
    for name, metric in (("AUROC", AUROC), ("AP", AUPR), ("F1-max", F1Max)):
        for where, (values, target) in {"image": (scores, truth), "pixel": (maps, masks)}.items():
            # Without the wrapper, which wants anomalib's own batches.
            [bare] = [base for base in metric.__mro__ if base.__name__ == f"_{metric.__name__}"]
            measure = bare()
            measure.update(values.flatten(), target.flatten())
            found[f"{where} {name}"] = float(measure.compute())
    [bare] = [base for base in AUPRO.__mro__ if base.__name__ == "_AUPRO"]
    for limit in (0.3, 0.05):
        measure = bare(fpr_limit=limit)
        measure.update(maps, masks)
        found[f"AUPRO {limit:g}"] = float(measure.compute())
    [bare] = [base for base in AUPIMO.__mro__ if base.__name__ == "_AUPIMO"]
    measure = bare(num_thresholds=int(sys.argv[2]), return_average=True, force=True)
    measure.update(maps, masks)
    found["AUPIMO"] = float(measure.compute())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
