"""Children that read hostile data: how any of them starts, talks and ends. A worker confines its own further."""
