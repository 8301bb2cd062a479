"""Bodies of requests and responses, field by field: one file per resource.

The schemas that clients read need pydantic alone and import each other by relative names. They are also
part of the package flowgauge-client, which has no FastAPI: see clients/pyproject.toml.
"""
