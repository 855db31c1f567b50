"""What people read is true: pages, reference, examples."""
