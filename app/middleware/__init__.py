"""ASGI middleware: request context, authentication, limits and connection handling."""
