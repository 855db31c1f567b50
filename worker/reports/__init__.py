"""Pages that are made of what a job has left in the bucket, after its end. They know no model and no device."""
