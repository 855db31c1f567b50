"""Named datasets in the bucket that grow by a version a job."""
