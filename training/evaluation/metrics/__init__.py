"""Metrics of images and pixels, see docs/reference/metrics.md."""
