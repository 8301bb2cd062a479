"""Training of models: data, fit, calibration, evaluation."""
