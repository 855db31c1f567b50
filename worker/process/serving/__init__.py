"""The online path in a worker: served models are kept loaded, and single requests are answered ahead of jobs."""
