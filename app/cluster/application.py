"""The application for `serve build` and `serve deploy`; its settings are the variables of the nodes."""

from app.cluster.deployment import Replicas, build
from app.settings import load_settings

service = build(load_settings(), Replicas(2, 8), {})
