"""The answer to an inspected image: JSON, history entry, HTTP response."""

import base64
import json
import time
from dataclasses import dataclass
from typing import Any, Final, Literal

from starlette.responses import Response

from app.database import clock
from app.history.audit_sample import is_drawn
from app.history.journal_record import HistoryEntry
from app.http.forms import TEXT_FIELDS
from app.inspection.decision import to_schema
from app.inspection.decoding import DecodedUpload
from app.inspection.explanation import DrawingFiles, Explanation
from app.inspection.params import PredictRequest
from app.inspection.warnings import find_warnings
from app.scheduling.batcher import BatchResult
from app.scheduling.thread_pool import TimedResult
from app.schemas import predict as schemas
from flows.fastflow.calibration.calibrator import Thresholds
from flows.fastflow.calibration.conformal import fpr_at_95_confidence

MediaType = Literal["application/json", "image/png", "application/x-npy"]
MEDIA_TYPES: Final[tuple[MediaType, ...]] = ("application/json", "image/png", "application/x-npy")


@dataclass(frozen=True)
class Answer:
    """An inspection with its drawings; `replayed` if a repeated request gets its first answer again."""

    inspection: schemas.Inspection
    files: DrawingFiles
    replayed: bool = False

    @property
    def nbytes(self) -> int:
        """Size of the drawings in bytes."""
        return sum(map(len, self.files.values()))

    def respond(self, media_type: MediaType) -> Response:
        """Create the response: JSON with inline drawings, or a single drawing."""
        headers = {"Idempotency-Replayed": "true"} if self.replayed else {}
        if media_type == "application/json":
            body = self.with_drawings().model_dump_json(exclude=None if self.files else {"inline"})
            return Response(body, headers=headers, media_type=media_type)
        content = self.files["overlay" if media_type == "image/png" else "map"]
        return Response(content, headers=self._headers() | headers, media_type=media_type)

    def with_drawings(self) -> schemas.Inspection:
        """Return the inspection with its drawings inline, as base64."""
        if not self.files:
            return self.inspection
        drawings = {name: base64.b64encode(data).decode() for name, data in self.files.items()}
        return self.inspection.model_copy(update={"inline": drawings})

    def _headers(self) -> dict[str, str]:
        inspection = self.inspection
        return {
            "X-Inspection-ID": inspection.inspection_id,
            "X-Decision": inspection.decision,
            "X-Score": repr(inspection.score),
            "X-P-Value": repr(inspection.p_value),
            "X-Model-Version": inspection.model.version,
            "X-Image-Width": str(inspection.image.width),
            "X-Image-Height": str(inspection.image.height),
        }


def make_inspection(
    request: PredictRequest,
    decoded: TimedResult[DecodedUpload],
    result: BatchResult,
    explained: TimedResult[Explanation],
    used: Thresholds,
    settings: schemas.SettingsUsed,
    audit_share: float,
) -> schemas.Inspection:
    """Take the decision, and create the JSON of the answer.

    Raises:
        ValueError: the score is not finite; NaN exceeds no threshold and would pass.
    """
    manifest, params = request.detector.manifest, request.params
    texts = {name: request.texts.get(name) for name in TEXT_FIELDS}
    score = used.calibrator.score(result.scored)
    height, width = decoded.value.size
    identifier = clock.new_id()
    sha256 = request.detector.sha256
    return schemas.Inspection(
        inspection_id=identifier,
        model=schemas.ModelUsed(category=manifest.category, version=manifest.version, sha256=sha256),
        decision=used.decide(score),
        warnings=find_warnings(manifest, used, score, result.scored),
        score=score,
        p_value=used.calibrator.p_value(score),
        threshold=to_schema(used),
        settings=settings,
        regions=explained.value.regions,
        anomalous_area_fraction=explained.value.area_fraction,
        image=schemas.ImageInfo(
            width=width, height=height, sha256=decoded.value.sha256, sample_bits=manifest.sample_bits
        ),
        links=schemas.links_of(identifier) if params.store else None,
        timing_ms=schemas.Timing(
            decode=1000 * decoded.took,
            queue=1000 * (decoded.waited + result.waited + explained.waited),
            infer=1000 * result.took,
            render=1000 * explained.took,
            total=1000 * (time.perf_counter() - params.start),
        ),
        batch_size=result.batch_size,
        engine=request.detector.engine,
        audit=params.store and is_drawn(identifier, audit_share),
        inline=None,
        **texts,
    )


def read_answer(text: str) -> dict[str, Any]:
    """Read a stored answer; complete one of an earlier version of FlowGauge."""
    earlier = {"audit": False, "warnings": [], "file_name": None}
    answer: dict[str, Any] = earlier | json.loads(text)
    used = answer["threshold"]
    used.setdefault("fpr_at_95_confidence", fpr_at_95_confidence(used["n_calibration"], used["target_fpr"]))
    return answer


def make_entry(
    request: PredictRequest,
    inspection: schemas.Inspection,
    data: bytes,
    result: BatchResult,
    used: Thresholds,
    digest: str | None,
) -> HistoryEntry:
    scale = used.calibrator.colour_scale
    same = ("decision", "score", "p_value", "audit", "warnings", *TEXT_FIELDS)
    row = {name: getattr(inspection, name) for name in same} | {
        "id": inspection.inspection_id,
        "created_ms": clock.id_to_ms(inspection.inspection_id),
        "category": inspection.model.category,
        "version": inspection.model.version,
        "margin": inspection.score - inspection.threshold.reject,
        "precision": request.detector.scorer.precision,
        "image_sha256": inspection.image.sha256,
        "map_low": scale.low,
        "map_middle": scale.middle,
        "features": list(result.scored.statistics),
        "answer": inspection.model_dump_json(exclude={"inline"}),
        "key_id": request.params.caller.key_id,
        "request_id": request.params.request.state.request_id,
        "idempotency_key": request.idempotency_key,
        "request_sha256": digest,
    }
    return HistoryEntry(row, data, result.scored.score_map)
