"""Energies to anomaly map and score."""
