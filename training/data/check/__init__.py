"""The data check: copies, near-duplicates, outliers, odd masks and sizes."""
