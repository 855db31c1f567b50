"""Runs generators: latents, sampling, encoding and interpolation."""
