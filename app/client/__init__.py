"""Clients of a FlowGauge server: `Client`, and `AsyncClient` for asyncio.

They need only httpx and pydantic. The package flowgauge-client (clients/) packs them for line PCs under the
name flowgauge_client, so all imports here and below are relative.
"""

from ..schemas.events import InspectionEvent as InspectionEvent
from ..schemas.events import ModelEvent as ModelEvent
from ..schemas.events import ReviewEvent as ReviewEvent
from ..schemas.events import ThresholdsEvent as ThresholdsEvent
from ..schemas.history import InspectionSummary as InspectionSummary
from ..schemas.history import KeptInspection as KeptInspection
from ..schemas.history import Part as Part
from ..schemas.history import Verdict as Verdict
from ..schemas.jobs import Job as Job
from ..schemas.jobs import JobKind as JobKind
from ..schemas.jobs import JobLines as JobLines
from ..schemas.jobs import JobState as JobState
from ..schemas.models import Model as Model
from ..schemas.models import ModelSummary as ModelSummary
from ..schemas.predict import BatchAnswer as BatchAnswer
from ..schemas.predict import BatchItem as BatchItem
from ..schemas.predict import Decision as Decision
from ..schemas.predict import Inspection as Inspection
from ..schemas.predict import Picture as Picture
from ..schemas.predict import Region as Region
from ..schemas.problem import ProblemDetails as ProblemDetails
from ..schemas.products import ChangedImages as ChangedImages
from ..schemas.products import ImageLabel as ImageLabel
from ..schemas.products import ImportedImages as ImportedImages
from ..schemas.products import Product as Product
from ..schemas.products import ProductImage as ProductImage
from ..schemas.products import StoredImages as StoredImages
from ..schemas.review import Review as Review
from .asynchronous import AsyncClient as AsyncClient
from .calls import InspectionQuery as InspectionQuery
from .calls import InspectOptions as InspectOptions
from .connection import AddressError as AddressError
from .errors import AccessError as AccessError
from .errors import BusyError as BusyError
from .errors import ConflictError as ConflictError
from .errors import FlowGaugeError as FlowGaugeError
from .errors import NotFoundError as NotFoundError
from .errors import ProblemError as ProblemError
from .errors import RefusedError as RefusedError
from .errors import ServerError as ServerError
from .errors import UnexpectedAnswerError as UnexpectedAnswerError
from .errors import UnreachableError as UnreachableError
from .errors import UntrustedError as UntrustedError
from .events import EventQuery as EventQuery
from .events import GapEvent as GapEvent
from .events import PositionEvent as PositionEvent
from .events import ServerSentEvent as ServerSentEvent
from .sync import Client as Client
