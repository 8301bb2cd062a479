"""Fit the flows, calibrate, publish."""
