"""Images to scores and anomaly maps."""
