"""What routes are given, as annotated aliases: the parts of the running service.

Asynchronous, because FastAPI would run each of them in a thread otherwise.
"""

from typing import Annotated

from fastapi import Depends, Path, Request

from app.admission import Admission
from app.inference import Inference
from app.residency import Residency
from app.settings import Settings


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _admission(request: Request) -> Admission:
    admission: Admission = request.app.state.admission
    return admission


async def _inference(request: Request) -> Inference:
    inference: Inference = request.app.state.inference
    return inference


async def _residency(request: Request) -> Residency:
    residency: Residency = request.app.state.residency
    return residency


SettingsPart = Annotated[Settings, Depends(_settings)]
AdmissionPart = Annotated[Admission, Depends(_admission)]
InferencePart = Annotated[Inference, Depends(_inference)]
ResidencyPart = Annotated[Residency, Depends(_residency)]

# No pattern here: a name that cannot be one is a model that there is not, 404 like any other.
Category = Annotated[str, Path(description="A category of /v1/models.", examples=["bottle"])]
Version = Annotated[str, Path(description="A version of the category.", examples=["20261125T011500-3f9a2c"])]
