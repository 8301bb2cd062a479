"""The base of request bodies."""

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """A JSON object from a client. Unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")
