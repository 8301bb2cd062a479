"""What bodies of requests have in common."""

from pydantic import BaseModel, ConfigDict, model_validator

_MOST_UNKNOWN = 128


class Body(BaseModel):
    """A JSON object that a client sends. A field that is unknown is an error; very many of them are one."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _expect_few_fields(cls, value: object) -> object:
        # As an error each, thousands would keep the event loop busy.
        if isinstance(value, dict) and len(value) > len(cls.model_fields) + _MOST_UNKNOWN:
            raise ValueError(f"has {len(value):,} fields; known are {', '.join(cls.model_fields)}")
        return value
