"""Policies of the object store: what each role may read and write, and nothing else.

The JSON files beside it are IAM policies for the bucket `imagemill`, made of `contract.keys`. To print them for others:

    python -m deploy.policies worker --bucket mill --source photos --results s3://labels/2026
"""
