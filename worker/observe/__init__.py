"""What a controller shows of the whole fleet; `contract.telemetry` serves it."""
