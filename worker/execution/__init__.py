"""How a shard of any job runs: leases, attempts, loaded models, device slots. Knows no kind of job."""
