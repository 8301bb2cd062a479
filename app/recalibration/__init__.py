"""Thresholds renewed with good images of the line."""
