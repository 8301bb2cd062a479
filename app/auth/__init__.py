"""API keys, roles, browser sessions and the audit log."""
