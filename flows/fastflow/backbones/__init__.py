"""Frozen timm backbones: presets, weights and feature maps."""
