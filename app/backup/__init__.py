"""Backups: what a service has kept and what it serves, copied while it runs, and brought back."""
