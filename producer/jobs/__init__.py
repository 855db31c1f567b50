"""Requests, schedules, reports and the status of jobs, as a producer sees them. Prints nothing."""
