"""Times as ISO 8601 texts."""

from typing import Annotated

from pydantic import Field

Timestamp = Annotated[
    str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-25T01:15:00.123Z"])
]
