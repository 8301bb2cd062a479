"""HTML reports of a run and over categories."""
