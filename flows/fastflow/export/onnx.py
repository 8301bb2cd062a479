"""Export of a model as one ONNX graph, for runtimes without FlowGauge.

The graph contains preprocessing, backbone, normalisation, flows, map and score. Decoding and resizing stay
outside.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from flows.fastflow.detector import Detector
from flows.fastflow.files.atomic_files import replacing
from flows.fastflow.model.fused import FusedHead
from flows.fastflow.scoring.map_and_score import anomaly_map, image_score, pixel_energies


class ExportError(ValueError):
    """The model cannot be exported; no file is written."""


class UnsuitableModelError(ExportError):
    """A single graph cannot represent the model."""


class OnnxModel(nn.Module):
    """Model from images of its input size to scores and maps, in plain torch.

    Args:
        detector: the model, on the CPU, in float32.

    Raises:
        UnsuitableModelError: the geometry uses padding, tiles or margins.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        scorer = detector.scorer
        if scorer.geometry.fit != "stretch":
            raise UnsuitableModelError(
                f"{detector.manifest.category} has geometry.fit: {scorer.geometry.fit}, which a graph of one "
                "size cannot represent; train it with geometry.fit: stretch to export it"
            )
        if scorer.geometry.margin:
            raise UnsuitableModelError(
                f"{detector.manifest.category} has geometry.margin: {scorer.geometry.margin}, which a graph "
                "cannot represent; train it with geometry.margin: 0 to export it"
            )
        self.rule, self.input_size = scorer.rule, scorer.input_size
        self.extractor = scorer.extractor.layers()
        self.head = FusedHead(scorer.head)
        self.learned = scorer.head.learned

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, H, W, 3) uint8 RGB to scores (N,) and maps (N, H, W), both float32."""
        energies = self.head(self.extractor.compute(images))
        pixels = pixel_energies(energies.flow, energies.gaussian, self.rule, self.input_size)
        flow, products = pixels.chunk(2, 1)
        learned = None
        if self.learned is not None and energies.description is not None:
            learned = self.learned(energies.description)
        score = image_score(flow, self.rule, energies.image, learned=learned)
        return score.float(), anomaly_map(products, self.rule)


def export_onnx(detector: Detector, path: Path) -> None:
    """Write a detector as an ONNX file, atomically.

    The input `images` is any number of images (N, H, W, 3) uint8 RGB of the model's input size. The outputs
    are `score` (N,) and `map` (N, H, W). The file's metadata hold the thresholds.

    Args:
        path: path of the file; an existing file is replaced.

    Raises:
        ExportError: see `OnnxModel`; or onnx is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch.onnx needs it, and reports that late)
    except ImportError as error:
        raise ExportError("the export needs onnx and onnxscript: pip install onnx onnxscript") from error
    model = OnnxModel(detector).eval()
    images = torch.zeros((2, *model.input_size, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # Warnings about torch's internals, which change with every version.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=["score", "map"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},),
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx returned no program")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, sync=False) as temporary:
        program.save(temporary)
        written = onnx.load(temporary)
        onnx.helper.set_model_props(written, dict(onnx_metadata(detector)))
        onnx.save(written, temporary)


def onnx_metadata(detector: Detector) -> Mapping[str, str]:
    """Collect the metadata with which a client decides about a score and colours a map."""
    manifest, thresholds = detector.manifest, detector.calibrator.default_thresholds
    threshold = thresholds.reject
    band = {}
    if thresholds.review is not None:
        band = {"review_above": repr(thresholds.review), "review_fpr": repr(manifest.review_fpr)}
    return {
        "category": manifest.category,
        "version": manifest.version,
        "manifest_sha256": detector.sha256,
        "backbone": manifest.backbone.name,
        "sample_bits": str(manifest.sample_bits),
        "shrink": detector.scorer.geometry.shrink,
        "reject_above": repr(threshold.reject),
        "target_fpr": repr(threshold.target_fpr),
        "certified": str(threshold.certified).lower(),
        **band,
        "map_typical": repr(manifest.calibration.map_typical),
        "map_threshold": repr(manifest.calibration.map_threshold),
    }
