"""Density estimation with the flow library: two-dimensional targets, digits, folders of images."""
