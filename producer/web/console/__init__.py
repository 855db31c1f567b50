"""The console: the jobs, models, workers and labels of a mill in a browser, rendered on the server."""
