"""Cost of inference: FlowGauge, anomalib and the bare backbone, which take turns in one run."""
