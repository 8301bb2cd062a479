"""The database of inspections, reviews, keys, sessions, events and the audit log."""
