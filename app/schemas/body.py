"""What bodies of requests have in common."""

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """A JSON object that a client sends. A field that is unknown is an error."""

    model_config = ConfigDict(extra="forbid")
