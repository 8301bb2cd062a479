"""Errors that a client is told: RFC 9457 problems, and the answers made of them."""
