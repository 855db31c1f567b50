"""How good a model or its images are: arrays in, figures out. Knows no page and no store."""
