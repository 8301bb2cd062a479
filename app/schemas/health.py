"""Schema of the health checks."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The state of the server."""

    status: Literal["live", "ready"]
