"""The model registry: versions, recipes and the review of pushed models. Knows no jobs."""
