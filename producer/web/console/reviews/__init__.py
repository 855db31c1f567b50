"""The pages on which people review the labels of a job: image by image, or a group at once."""
