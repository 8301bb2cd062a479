"""Schema of problem details."""

from pydantic import BaseModel, Field


class ProblemDetails(BaseModel):
    """An error, as RFC 9457 describes it."""

    type: str = Field(description="The type of error; branch on it.", examples=["queue-full"])
    title: str = Field(description="The type in words.")
    status: int = Field(description="The HTTP status code.", examples=[503])
    detail: str = Field(description="The cause in this request, for people.")
    instance: str = Field(description="The requested path.", examples=["/v1/models"])
    request_id: str = Field(description="Leads to the server's log.", examples=["6f1c0e52a9"])
