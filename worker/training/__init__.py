"""Recipe and data in, weights out: data, batches, learners, the loop. It knows no Celery, no Redis and no store."""
