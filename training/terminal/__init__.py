"""Output on the terminal: progress and tables."""
