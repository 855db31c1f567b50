"""Every error of Imagemill, as one tree; foreign errors are mapped onto it at the edge.

    ImagemillError
    ├── InvalidInput            the caller must change something            exit 2
    │   ├── InvalidSource       nothing to label, or no such folder, bucket, manifest
    │   ├── InvalidSettings     a setting, or the credentials, cannot be right
    │   ├── UnknownModel        with the nearest names
    │   ├── UnknownJob
    │   ├── InvalidSchedule     a cron line, a time zone or a name that cannot be, or is taken
    │   ├── UnknownSchedule     with the nearest names
    │   └── JobConflict         one id, two specs; or a state that forbids the action
    ├── JobFailed               the job ended, but not well                 exit 1
    ├── ServiceUnavailable      a retry can help                            exit 3
    │   ├── RedisUnavailable
    │   └── StoreUnavailable
    ├── StoreRefused            the store understands a request and refuses it
    │   └── StoreFull           it has no room; once it has, what was asked for goes on
    ├── ModelError              weights that do not match their record, an unknown family
    ├── TrainingDiverged        a loss that is not finite; nothing is published
    ├── DeviceOutOfMemory       a smaller batch can help
    ├── LeaseLost               another worker holds the shard now
    ├── WorkerLeaving           a worker was asked to end; another goes on
    ├── WorkerUnfit             a worker cannot load its own code; it leaves
    ├── JobStopped              the job was canceled, or failed, while a shard was running
    ├── ObjectNotFound          an object that should be there is not
    ├── ObjectDamaged           an object is not what its commit says
    └── ImageError              one bad image, one bad row; `code` is stable, see below
        ├── EmptyFile           empty_file
        ├── NotAnImage          not_an_image
        ├── TruncatedImage      truncated
        ├── TooManyPixels       too_many_pixels
        ├── TooManyBytes        too_many_bytes
        ├── TooManyFrames       too_many_frames
        ├── ImageNotFound       not_found
        ├── ImageDenied         access_denied
        ├── FetchFailed         fetch_failed
        ├── DecodeFailed        decode_failed
        └── WorkerKilled        worker_killed

A message names what, which object, why, and what to do, in one sentence.
"""

from __future__ import annotations


class ImagemillError(Exception):
    """The root. `retryable` says whether the same call can succeed later; `exit_code` is the command's."""

    retryable = False
    exit_code = 1


class InvalidInput(ImagemillError):
    """The caller must change something."""

    exit_code = 2


class InvalidSource(InvalidInput):
    """A source that is not there, cannot be read, or holds no images."""


class InvalidSettings(InvalidInput):
    """A setting or a credential that cannot be right."""


class UnknownModel(InvalidInput):
    """A model that the registry does not list."""


class UnknownJob(InvalidInput):
    """A job that neither the ledger nor the bucket knows."""


class InvalidSchedule(InvalidInput):
    """A cron line, a time zone or a name that a schedule cannot have."""


class UnknownSchedule(InvalidInput):
    """A schedule that is not in the bucket."""


class JobConflict(InvalidInput):
    """The job exists with another spec, or is in a state that forbids the action."""


class JobFailed(ImagemillError):
    """The job ended as failed or canceled, or passed its error budget."""


class ServiceUnavailable(ImagemillError):
    """A service cannot be reached; nothing was lost, try again."""

    retryable = True
    exit_code = 3


class RedisUnavailable(ServiceUnavailable):
    """Redis does not answer."""


class StoreUnavailable(ServiceUnavailable):
    """The object store does not answer."""


class StoreRefused(ImagemillError):
    """The store answers, and its answer is no; the same request will not do better."""


class StoreFull(StoreRefused):
    """The store has no room for an object, or fails each write of it for as long as we are patient."""


class ModelError(ImagemillError):
    """A model that cannot be loaded: wrong sha256, unknown family, labels that do not fit."""


class TrainingDiverged(ImagemillError):
    """A training whose loss is not a finite number any more; nothing of it is published."""


class DeviceOutOfMemory(ImagemillError):
    """The device has no memory for this batch; a smaller one can work."""

    retryable = True


class LeaseLost(ImagemillError):
    """The lease on the shard ran out and another worker may hold it."""


class WorkerUnfit(ImagemillError):
    """This worker cannot load what runs a job; whoever started it starts it again, with code of one version."""


class JobStopped(ImagemillError):
    """The job was canceled or failed while one of its shards was running."""


class WorkerLeaving(ImagemillError):
    """This worker was asked to end while it was at something long; another goes on with it."""


class ObjectNotFound(ImagemillError):
    """An object that should be in the store is not."""


class ObjectDamaged(ImagemillError):
    """The bytes of an object do not have the sha256 that was written down for them."""


class ImageError(ImagemillError):
    """One bad image: it becomes one row with `status=error` and this `code`."""

    code = "decode_failed"

    def of_frame(self, uri: str) -> ImageError:
        """The same error of a sequence whose frame `uri` is bad, with a message that names it."""
        said = str(self)
        return self if uri in said else type(self)(f"The frame {uri}: {said}")


class EmptyFile(ImageError):
    """The file has no bytes."""

    code = "empty_file"


class NotAnImage(ImageError):
    """The bytes are of no image format that is read here."""

    code = "not_an_image"


class TruncatedImage(ImageError):
    """The file ends before the image does."""

    code = "truncated"


class TooManyPixels(ImageError):
    """The header claims more pixels than `max_image_pixels`; nothing was decoded."""

    code = "too_many_pixels"


class TooManyBytes(ImageError):
    """The file is larger than `max_image_bytes`; it was not read to its end."""

    code = "too_many_bytes"


class TooManyFrames(ImageError):
    """The sequence has more frames than any may; none was read."""

    code = "too_many_frames"


class ImageNotFound(ImageError):
    """The object was gone when the worker asked for it."""

    code = "not_found"


class ImageDenied(ImageError):
    """The store refused to hand the object out."""

    code = "access_denied"


class FetchFailed(ImageError):
    """A web address did not deliver, after retries."""

    code = "fetch_failed"


class DecodeFailed(ImageError):
    """The decoder raised something of its own."""

    code = "decode_failed"


class WorkerKilled(ImageError):
    """The image killed every worker that touched it, alone in its shard."""

    code = "worker_killed"


IMAGE_ERRORS: dict[str, type[ImageError]] = {
    cls.code: cls
    for cls in (
        EmptyFile,
        NotAnImage,
        TruncatedImage,
        TooManyPixels,
        TooManyBytes,
        TooManyFrames,
        ImageNotFound,
        ImageDenied,
        FetchFailed,
        DecodeFailed,
        WorkerKilled,
    )
}
"""Every code that a row can carry, with the class behind it."""
