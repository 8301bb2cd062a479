"""OpenVINO on a CPU: converted backbones, heads and pixels."""
