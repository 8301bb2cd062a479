"""Models on disk and in memory, and the settings of their categories."""
