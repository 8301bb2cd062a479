"""How a model is made: data, fit, calibration, evaluation."""
