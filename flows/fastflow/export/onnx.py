"""A model as one ONNX graph, for runtimes that know nothing of FlowGauge.

Preprocessing, backbone, normalisation, flows, map and score are inside; decoding and resizing stay outside.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from flows.fastflow.detector import Detector
from flows.fastflow.files.atomic_files import replacing
from flows.fastflow.model.fused import FusedHead
from flows.fastflow.scoring.score import anomaly_map, image_score, pixel_energies


class ExportError(ValueError):
    """No file was written."""


class UnsuitableModelError(ExportError):
    """The model is none that a single graph can hold."""


class OnnxModel(nn.Module):
    """Pictures of the model's input size to scores and maps, in plain torch.

    Args:
        detector: the model, on the CPU, in float32.

    Raises:
        ExportError: pictures do not fill its input to the edges, once each.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        scorer = detector.scorer
        if scorer.geometry.fit != "stretch":
            raise UnsuitableModelError(
                f"{detector.manifest.category} takes pictures by geometry.fit: {scorer.geometry.fit}, of "
                "which a graph of one size knows nothing; train it with geometry.fit: stretch to export it"
            )
        if scorer.geometry.margin:
            raise UnsuitableModelError(
                f"{detector.manifest.category} has geometry.margin: {scorer.geometry.margin}, pixels "
                "around a picture that do not count, of which a graph knows nothing; train it without"
            )
        self.rule, self.input_size = scorer.rule, scorer.input_size
        self.extractor = scorer.extractor.layers()
        self.head = FusedHead(scorer.head)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, 3) uint8 RGB of the input size to scores (N,) and maps (N, H, W), both float32."""
        found = self.head(self.extractor.compute(images))
        flow, both = pixel_energies(found.flow, found.gaussian, self.rule, self.input_size).chunk(2, 1)
        return image_score(flow, self.rule, found.image).float(), anomaly_map(both, self.rule)


def export_onnx(detector: Detector, path: Path) -> None:
    """Write a detector as an ONNX file, whole or not at all.

    The graph takes `images`, any number of pictures (N, H, W, 3) uint8 RGB of the model's input size, and
    gives `score` (N,) and `map` (N, H, W). What it takes to decide stands in the file's metadata.

    Args:
        detector: the model, on the CPU, in float32.
        path: of the file; one that is there is replaced.

    Raises:
        ExportError: see `OnnxModel`; or onnx is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch.onnx needs it, and says so late)
    except ImportError as error:
        raise ExportError(
            "ONNX files are written with onnx and onnxscript: pip install onnx onnxscript"
        ) from error
    model = OnnxModel(detector).eval()
    images = torch.zeros((2, *model.input_size, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # Of torch's own ways, which change with every version.
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
        raise ExportError("torch.onnx gave no program")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, sync=False) as temporary:
        program.save(temporary)
        written = onnx.load(temporary)
        onnx.helper.set_model_props(written, dict(onnx_metadata(detector)))
        onnx.save(written, temporary)


def onnx_metadata(detector: Detector) -> Mapping[str, str]:
    """What a client must know to decide by a score and to colour a map."""
    manifest, own = detector.manifest, detector.calibrator.default_thresholds
    threshold = own.reject
    band = {}
    if own.review is not None:
        band = {"review_above": repr(own.review), "review_fpr": repr(manifest.review_fpr)}
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
