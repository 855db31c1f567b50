"""Webhooks: signed messages about what happened, kept in the bucket until they are delivered.

    webhooks/all                          the webhook that is told of everything
    webhooks/endpoints/<id>.json          where to, and whose it is
    webhooks/secrets/<id>.json            what its messages are signed with
    webhooks/disabled/<id>.json           it answered 410
    webhooks/due/…                        what happened and is no message yet; empty
    webhooks/messages/<id>/<name>.json    a message, written if absent
    webhooks/waiting/<id>/<name>.json     it is not delivered yet
    webhooks/outcomes/<id>/<name>.json    what became of it

Whoever ends a job writes a note; the controller alone makes messages of notes, from what the bucket says about the
job, and delivers them (`worker.control.webhooks`).
"""
