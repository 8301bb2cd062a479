"""What goes over the wire, field by field: one file per resource.

What clients read (events, history, models, moment, predict, problem, review, texts; body, of which review is)
needs pydantic alone and imports its like by relative names: it is also part of the package flowgauge-client,
which has no fastapi.
"""
