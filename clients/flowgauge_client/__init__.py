"""Clients of a FlowGauge server: `Client`, and `AsyncClient` for asyncio."""

from .client import *  # noqa: F403
