"""Bytes of images in, labels out: decode, batch, run. It knows no Celery, no Redis and no store."""
