"""Sources as a user types them: resolved, walked, packed and read back. Submits no job."""
