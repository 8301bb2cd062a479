"""Engines that compute backbones, heads and pixels: torch and OpenVINO."""
