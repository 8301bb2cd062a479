"""What routes are given, as annotated aliases: the parts of the running service.

Asynchronous, because FastAPI would run each of them in a thread otherwise.
"""

from typing import Annotated

from fastapi import Depends, Path, Request

from app.admission import Admission
from app.audit import Audit
from app.batcher import Batcher
from app.draining import Draining
from app.feed.feed import Feed
from app.history.drift import Drift
from app.history.history import History
from app.inspector import Inspector
from app.keyring import Keyring
from app.keys import Keys
from app.residency import Residency
from app.sessions import Sessions
from app.settings import Settings
from app.store import Store
from app.telemetry import Telemetry


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _admission(request: Request) -> Admission:
    admission: Admission = request.app.state.admission
    return admission


async def _batcher(request: Request) -> Batcher:
    batcher: Batcher = request.app.state.batcher
    return batcher


async def _residency(request: Request) -> Residency:
    residency: Residency = request.app.state.residency
    return residency


async def _telemetry(request: Request) -> Telemetry:
    telemetry: Telemetry = request.app.state.telemetry
    return telemetry


async def _draining(request: Request) -> Draining:
    draining: Draining = request.app.state.draining
    return draining


async def _audit(request: Request) -> Audit:
    audit: Audit = request.app.state.audit
    return audit


async def _keys(request: Request) -> Keys:
    keys: Keys = request.app.state.keys
    return keys


async def _keyring(request: Request) -> Keyring:
    keyring: Keyring = request.app.state.keyring
    return keyring


async def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


async def _history(request: Request) -> History:
    history: History = request.app.state.history
    return history


async def _feed(request: Request) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


async def _drift(request: Request) -> Drift:
    drift: Drift = request.app.state.drift
    return drift


async def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def _inspector(request: Request) -> Inspector:
    inspector: Inspector = request.app.state.inspector
    return inspector


HistoryPart = Annotated[History, Depends(_history)]
FeedPart = Annotated[Feed, Depends(_feed)]
DriftPart = Annotated[Drift, Depends(_drift)]
StorePart = Annotated[Store, Depends(_store)]
InspectorPart = Annotated[Inspector, Depends(_inspector)]
SettingsPart = Annotated[Settings, Depends(_settings)]
AdmissionPart = Annotated[Admission, Depends(_admission)]
BatcherPart = Annotated[Batcher, Depends(_batcher)]
ResidencyPart = Annotated[Residency, Depends(_residency)]
TelemetryPart = Annotated[Telemetry, Depends(_telemetry)]
DrainingPart = Annotated[Draining, Depends(_draining)]
AuditPart = Annotated[Audit, Depends(_audit)]
KeysPart = Annotated[Keys, Depends(_keys)]
KeyringPart = Annotated[Keyring, Depends(_keyring)]
SessionsPart = Annotated[Sessions, Depends(_sessions)]


async def expect_not_draining(request: Request) -> None:
    """Raise the problem draining when the server is stopping; before a body is read."""
    draining: Draining = request.app.state.draining
    draining.expect_not_begun()


# No pattern here: a name that cannot be one is a model that there is not, 404 like any other.
Category = Annotated[str, Path(description="A category of /v1/models.", examples=["bottle"])]
Version = Annotated[str, Path(description="A version of the category.", examples=["20261125T011500-3f9a2c"])]
