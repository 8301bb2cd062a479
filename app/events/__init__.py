"""Events of the service: kept in order, streamed live, delivered to sinks."""
