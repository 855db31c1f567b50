"""What people said of a job's labels: verdicts, what counts where they differ, and sets of labels to learn from."""
