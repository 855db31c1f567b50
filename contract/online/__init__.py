"""The online path: one request, its answer within a deadline, through a Redis without persistence."""
