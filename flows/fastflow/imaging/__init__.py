"""Decode, resize, tile, mask and colour images."""
