"""The Open Inference Protocol, version 2, with the extension for binary tensor data."""
