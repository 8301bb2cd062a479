"""Other detectors, fitted and measured on the same pictures: `flowgauge evaluate --compare`."""
