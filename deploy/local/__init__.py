"""The embedded stack: Redis, an S3 server and the processes of Imagemill on one machine. Knows no images."""
