"""Golden images of a bundle: scores that the model must reproduce wherever it is loaded."""

from collections.abc import Mapping

from flows.fastflow.imaging.decoder import decode_image
from flows.fastflow.imaging.image_limits import FILE_LIMITS
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.manifest import Golden, Precision


def score_golden(file: str, data: bytes, scorers: Mapping[Precision, Scorer], sample_bits: int) -> Golden:
    """Score a golden image by every engine.

    Args:
        file: its name in the bundle.
        data: its content.
        scorers: by precision, float32 among them.
        sample_bits: see `decoder.decode_image`.
    """
    image = decode_image(data, FILE_LIMITS, sample_bits)
    scores = {name: scorer.score([image])[0].score for name, scorer in scorers.items()}
    return Golden(file=file, score=scores.pop("float32"), reduced=scores)
