"""Output formats: labels and generated images as files that other programs read. Submits no job."""
