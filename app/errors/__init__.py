"""Errors of requests: RFC 9457 problem types and the responses built from them."""
