"""What runs a generator: latents, sampling, encoding and interpolation."""
