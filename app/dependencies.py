"""Dependencies of routes, as annotated aliases: the parts of the running service.

They are asynchronous, because FastAPI would run synchronous ones in threads.
"""

from typing import Annotated, Any

from fastapi import Depends, Path, Request

from app.auth.audit import Audit
from app.auth.key_store import KeyStore
from app.auth.keyring import Keyring
from app.auth.sessions import SessionStore
from app.events.feed import Feed
from app.history.deletions import DeletionGuard
from app.history.drift import DriftMonitor
from app.history.history import History
from app.history.retention import Retention
from app.inspection.image_pipeline import InspectionPipeline
from app.inspection.predict_request import PredictHandler
from app.jobs.runner import JobRunner
from app.jobs.teacher import Teacher
from app.products.products import Products
from app.registry.loaded_models import LoadedModels
from app.registry.model_store import ModelStore
from app.scheduling.admission import Admission
from app.scheduling.batcher import Batcher
from app.scheduling.draining import Draining
from app.settings import Settings
from app.telemetry.metrics import Telemetry


def _part(name: str) -> Any:
    """Make a dependency on an attribute of `app.state`, see `create_app`."""

    async def read_state(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(read_state)


HistoryDep = Annotated[History, _part("history")]
FeedDep = Annotated[Feed, _part("feed")]
DeletionsDep = Annotated[DeletionGuard, _part("deletions")]
RetentionDep = Annotated[Retention, _part("retention")]
DriftDep = Annotated[DriftMonitor, _part("drift")]
StoreDep = Annotated[ModelStore, _part("store")]
JobsDep = Annotated[JobRunner, _part("jobs")]
TeacherDep = Annotated[Teacher, _part("teacher")]
ProductsDep = Annotated[Products, _part("products")]
PipelineDep = Annotated[InspectionPipeline, _part("pipeline")]
PredictorDep = Annotated[PredictHandler, _part("predictor")]
SettingsDep = Annotated[Settings, _part("settings")]
AdmissionDep = Annotated[Admission, _part("admission")]
BatcherDep = Annotated[Batcher, _part("batcher")]
LoadedModelsDep = Annotated[LoadedModels, _part("loaded_models")]
TelemetryDep = Annotated[Telemetry, _part("telemetry")]
DrainingDep = Annotated[Draining, _part("draining")]
AuditDep = Annotated[Audit, _part("audit")]
KeysDep = Annotated[KeyStore, _part("keys")]
KeyringDep = Annotated[Keyring, _part("keyring")]
SessionsDep = Annotated[SessionStore, _part("sessions")]


async def require_not_draining(request: Request) -> None:
    """Raise the problem draining while the server stops, before the body is read."""
    draining: Draining = request.app.state.draining
    draining.require_not_begun()


# Without a pattern: an impossible name is an unknown model, 404 like any other.
Category = Annotated[str, Path(description="A category of /v1/models.", examples=["bottle"])]
Version = Annotated[str, Path(description="A version of the category.", examples=["20261125T011500-3f9a2c"])]


async def _version_in_path(version: Version) -> str:
    return version


# For functions shared by routes with and without a version: they read it from `request.path_params`.
VERSION_IN_PATH = Depends(_version_in_path)
