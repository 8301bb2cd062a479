"""Metrics of images and pixels, see docs/metrics.md."""
