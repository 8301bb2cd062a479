"""Recalibration of thresholds with good images of the line."""
