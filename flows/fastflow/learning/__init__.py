"""Learning from reviewed defects."""
