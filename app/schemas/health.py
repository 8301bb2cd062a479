"""What goes over the wire about the server's own state."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """A state in one word."""

    status: Literal["live", "ready"]
