"""Snapshots of a running service: create, verify, restore."""
