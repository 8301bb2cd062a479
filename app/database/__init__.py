"""What outlives the process in a database: inspections, reviews, keys, sessions and the audit log."""
