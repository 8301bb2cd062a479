"""What goes over the wire when something is wrong."""

from pydantic import BaseModel, Field


class ProblemDetails(BaseModel):
    """An error, as RFC 9457 describes it."""

    type: str = Field(description="Which error this is; branch on it.", examples=["queue-full"])
    title: str = Field(description="The type in words.")
    status: int = Field(description="The HTTP status code again.", examples=[503])
    detail: str = Field(description="What was wrong with this very request, for people.")
    instance: str = Field(description="The path that was asked for.", examples=["/v1/models"])
    request_id: str = Field(description="Leads to the server's log.", examples=["6f1c0e52a9"])
