"""The anomaly detector: everything that training and serving must agree on."""
