"""Names that producers and workers share: keys of objects and of Redis, queues and tasks; a module a subject."""
