"""Learning from reviewed inspections of the history."""
