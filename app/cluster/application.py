"""The application for `serve build` and `serve deploy`, with the settings of the nodes."""

from app.cluster.deployment import Replicas, build
from app.settings import load_settings

service = build(load_settings(), Replicas(2, 8), {})
