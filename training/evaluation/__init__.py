"""Measure a published version on test images."""
