"""Other detectors, fitted and measured on the same images: `flowgauge evaluate --compare`."""
