"""Cost of inference: FlowGauge, anomalib and the bare backbone, measured in turns."""
