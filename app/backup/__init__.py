"""Snapshots of a service, taken while it runs, and back."""
