"""Conformal thresholds from the scores of held-out good images."""
