"""What runs a classifier on a device: OpenVINO or torch, images or sequences."""
