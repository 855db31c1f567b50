"""The names of the queues and of the tasks on them."""

QUEUE_CONTROL = "control"
QUEUE_CLASSIFY = "classify"
QUEUE_TRAIN = "train"
QUEUE_GENERATE = "generate"
QUEUE_CHECK = "check"
"""Checks of pushed models. Somebody waits for each, and on another queue would wait behind all shards of a job."""
WORKER_QUEUES = (QUEUE_CLASSIFY, QUEUE_GENERATE, QUEUE_TRAIN, QUEUE_CHECK)
"""What a worker consumes by default; Celery takes from each in turn."""
QUEUES = (QUEUE_CONTROL, *WORKER_QUEUES)

TASK_PLAN = "imagemill.plan"
TASK_FINALIZE = "imagemill.finalize"
TASK_TICK = "imagemill.tick"
TASK_RUN = "imagemill.run"
"""A ticket: whoever gets it asks the ledger for a shard of any job of its queue (`contract.backend.dispatch`)."""
TASK_FINISH = "imagemill.finish"
"""Finish a whole job on a worker: choose images and end it, or write its page."""
TASK_CHECK = "imagemill.check"
