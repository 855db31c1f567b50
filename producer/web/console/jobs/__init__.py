"""The pages of jobs: the list, one job with its rows and figures, what failed, and the forms that make one."""
