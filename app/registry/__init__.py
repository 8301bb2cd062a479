"""Models on disk and in memory, and what is set for their categories."""
