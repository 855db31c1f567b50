"""The tree of errors. Errors of other libraries are mapped to it where they occur.

    ImagemillError
    ├── InvalidInput            the caller must change something            exit 2
    │   ├── InvalidSource       no images, or no such folder, bucket or manifest
    │   ├── InvalidSettings     a setting or a credential is invalid
    │   ├── UnknownModel        with the nearest names
    │   ├── UnknownJob
    │   ├── InvalidSchedule     an invalid cron line or time zone, or a name that is taken
    │   ├── UnknownSchedule     with the nearest names
    │   ├── InvalidWatch        a prefix that cannot be watched, or a name that is taken
    │   ├── InvalidEvent        a message about a bucket that cannot be understood
    │   ├── UnknownWatch        with the nearest names
    │   ├── UnknownDataset      with the nearest names
    │   ├── NothingMissing      no class has fewer images than it should have
    │   ├── UnknownUpload       no file was uploaded under the id
    │   ├── UnknownWebhook      no such webhook, or no such message to one
    │   ├── UnknownToken        no such token of the HTTP API
    │   ├── TokenRefused        the HTTP API does not know the token, or it lacks a scope
    │   ├── TooManyRequests     more requests than the token may make
    │   ├── NotServed           no model of this name answers single requests
    │   ├── RequestTooLarge     more bytes or images than the online path takes at a time
    │   ├── NotOwner            a model, schedule, watch or dataset belongs to another owner
    │   └── JobConflict         one id for two specs, or a state that forbids the action
    │       └── DatasetBusy     another job extends the dataset now
    ├── JobFailed               the job did not succeed                     exit 1
    ├── ServiceUnavailable      a retry can help                            exit 3
    │   ├── RedisUnavailable
    │   ├── StoreUnavailable
    │   ├── Overloaded          the answer would come too late; `retry_after` seconds
    │   ├── Expired             no answer within the deadline
    │   ├── OnlineFailed        a request failed on a worker, and may succeed on another
    │   └── CredentialsRefused  the store refuses this machine's credentials or clock
    ├── StoreRefused            the store refuses a request
    │   └── StoreFull           the store is full; resume once it has room
    ├── ModelError              a model that cannot be loaded
    │   └── RuntimeUnsuited     the only runtime that a worker may use cannot run it; another may
    ├── TrainingDiverged        the loss is not finite; nothing is published
    ├── DeviceOutOfMemory       a smaller batch can help
    ├── LeaseLost               another worker holds the shard now
    │   └── ShardDone           another worker has committed the shard
    ├── LockLost                another process may hold the lock now
    ├── WorkerLeaving           a worker was asked to end; another continues
    ├── WorkerUnfit             a worker cannot be relied upon and leaves
    ├── JobStopped              the job was canceled, or failed, while a shard was running
    ├── ObjectNotFound          an object is missing
    │   └── ObjectChanged       another version is there
    ├── ObjectDamaged           an object differs from what was committed
    │   └── NewerVersion        a newer version wrote it
    └── ImageError              one bad image, one bad row; `code` is stable
        ├── EmptyFile           empty_file
        ├── NotAnImage          not_an_image
        ├── TruncatedImage      truncated
        ├── TooManyPixels       too_many_pixels
        ├── TooManyBytes        too_many_bytes
        ├── TooManyFrames       too_many_frames
        ├── ImageNotFound       not_found
        ├── ImageDenied         access_denied
        ├── FetchFailed         fetch_failed
        ├── AddressRefused      address_refused
        ├── DecodeFailed        decode_failed
        ├── DecodeTimeout       decode_timeout
        ├── InferenceFailed     inference_failed
        └── WorkerKilled        worker_killed

A message is one sentence: what happened, to which object, why, and what to do.
"""

from __future__ import annotations

import re


class ImagemillError(Exception):
    """Base class. `retryable`: the same call can succeed later. `exit_code`: what the command line exits with."""

    retryable = False
    exit_code = 1


class InvalidInput(ImagemillError):
    """The request is invalid; change it and try again."""

    exit_code = 2


class InvalidSource(InvalidInput):
    """The source does not exist, cannot be read, or holds no images."""


class InvalidSettings(InvalidInput):
    """A setting or a credential is invalid."""


class UnknownModel(InvalidInput):
    """The registry has no such model."""


class UnknownJob(InvalidInput):
    """There is no such job, in the ledger or in the bucket."""


class InvalidSchedule(InvalidInput):
    """The cron line, time zone or name of a schedule is invalid, or the name is taken."""


class InvalidWatch(InvalidInput):
    """The watch has an invalid name, prefix or interval, or a name that is taken."""


class InvalidEvent(InvalidInput):
    """What was posted as an event is none, or names no object that can be followed."""


class UnknownWatch(InvalidInput):
    """There is no watch with this name."""


class UnknownSchedule(InvalidInput):
    """There is no such schedule."""


class NothingMissing(InvalidInput):
    """Every class has the images that it should have, so there is nothing to synthesize."""


class UnknownDataset(InvalidInput):
    """The bucket has no such dataset, or no such version of it."""


class UnknownUpload(InvalidInput):
    """No file was uploaded under this id, or it belongs to another owner."""


class UnknownWebhook(InvalidInput):
    """There is no such webhook, or no such message to one."""


class UnknownToken(InvalidInput):
    """There is no token of the HTTP API with this id."""


class TokenRefused(InvalidInput):
    """The HTTP API does not know the token, or it has expired, or it lacks the scope that the request needs."""


class TooManyRequests(InvalidInput):
    """The token makes more requests than it may; wait as long as `Retry-After` says."""

    retryable = True


class NotServed(InvalidInput):
    """The model does not answer single requests; `imagemill serve` changes that."""


class RequestTooLarge(InvalidInput):
    """The request has more bytes or images than the online path takes at a time."""


class NotOwner(InvalidInput):
    """The model, schedule, watch or dataset belongs to another owner, or its name is reserved."""


class JobConflict(InvalidInput):
    """The job exists with another spec, or is in a state that forbids the action."""


class DatasetBusy(JobConflict):
    """Another job extends the dataset; submit this one again once that has ended."""


class JobFailed(ImagemillError):
    """The job ended as failed or canceled, or passed its error budget."""


class ServiceUnavailable(ImagemillError):
    """A service cannot be reached. Nothing was lost; try again."""

    retryable = True
    exit_code = 3


class RedisUnavailable(ServiceUnavailable):
    """Redis does not answer."""


class StoreUnavailable(ServiceUnavailable):
    """The object store does not answer."""


class Overloaded(ServiceUnavailable):
    """An answer would come later than the deadline, or no worker is ready. `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Expired(ServiceUnavailable):
    """There was no answer within the deadline."""


class OnlineFailed(ServiceUnavailable):
    """The request failed on a worker for a reason that need not lie in it."""


class CredentialsRefused(ServiceUnavailable):
    """The object store refuses this machine's credentials, or its clock; no object and no job is at fault.

    `retryable` where new credentials or a corrected clock may arrive by themselves.
    """

    exit_code = 2

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class StoreRefused(ImagemillError):
    """The object store refuses the request; repeating it will not help."""


class StoreFull(StoreRefused):
    """The object store has no room, or kept failing to write an object. Free space, then resume the job."""


class ModelError(ImagemillError):
    """The model cannot be loaded: wrong sha256, unknown family, or labels that do not fit."""


class RuntimeUnsuited(ModelError):
    """OpenVINO, which this worker must use, cannot run the model; a worker that may use torch can."""


class TrainingDiverged(ImagemillError):
    """The loss of a training is no longer finite. Nothing is published; lower the learning rate."""


class DeviceOutOfMemory(ImagemillError):
    """The device has no memory for this batch; a smaller one may fit."""

    retryable = True


class LeaseLost(ImagemillError):
    """The lease on the shard expired, and another worker may hold it."""


class ShardDone(LeaseLost):
    """Another worker has committed the shard, so nothing is left to do."""


class LockLost(ImagemillError):
    """The lock expired while its holder was stopped or cut off, and another process may hold it."""


class WorkerUnfit(ImagemillError):
    """This worker cannot load the code of a job, or a known good image fails on it. It exits, to be started again."""


class JobStopped(ImagemillError):
    """The job was canceled or failed while one of its shards was running."""


class WorkerLeaving(ImagemillError):
    """This worker was asked to end during a long task; another worker continues it."""


class ObjectNotFound(ImagemillError):
    """An object is missing from the store."""


class ObjectChanged(ObjectNotFound):
    """The version of an object that was asked for is missing: it was overwritten."""


class ObjectDamaged(ImagemillError):
    """An object does not have the sha256 that was recorded for it."""


class NewerVersion(ObjectDamaged):
    """An object has fields that this version does not know; a process of the version that wrote it can read it."""


class ImageError(ImagemillError):
    """A bad image. It becomes a row with `status=error` and this `code`."""

    code = "decode_failed"

    def of_frame(self, uri: str) -> ImageError:
        """Return this error for the sequence that contains the bad frame `uri`, with a message that names the frame."""
        said = str(self)
        return self if uri in said else type(self)(f"The frame {uri}: {said}")


class EmptyFile(ImageError):
    """The file has no bytes."""

    code = "empty_file"


class NotAnImage(ImageError):
    """The bytes are not in a supported image format."""

    code = "not_an_image"


class TruncatedImage(ImageError):
    """The file ends before the image does."""

    code = "truncated"


class TooManyPixels(ImageError):
    """The header claims more pixels than `max_image_pixels`; nothing was decoded."""

    code = "too_many_pixels"


class TooManyBytes(ImageError):
    """The file is larger than `max_image_bytes`, and was not read to its end."""

    code = "too_many_bytes"


class TooManyFrames(ImageError):
    """The sequence has too many frames; none was read."""

    code = "too_many_frames"


class ImageNotFound(ImageError):
    """The image was gone when a worker read it."""

    code = "not_found"


class ImageDenied(ImageError):
    """The store denied access to the image."""

    code = "access_denied"


class FetchFailed(ImageError):
    """A web address did not deliver the image within `fetch_seconds`, after retries."""

    code = "fetch_failed"


class AddressRefused(ImageError):
    """Workers may not reach the address or the bucket of the image; nothing was sent there."""

    code = "address_refused"


class DecodeFailed(ImageError):
    """The decoder failed."""

    code = "decode_failed"


class InferenceFailed(ImageError):
    """The image failed alone in two processes, in each of which a known good image passed."""

    code = "inference_failed"


class DecodeTimeout(ImageError):
    """Decoding took more CPU time than an image may take."""

    code = "decode_timeout"


class WorkerKilled(ImageError):
    """The image ended every process that tried it, alone in its shard."""

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
        AddressRefused,
        DecodeFailed,
        DecodeTimeout,
        InferenceFailed,
        WorkerKilled,
    )
}
"""Every code that a row can carry, with the class behind it."""
REMEDIES: dict[str, str] = {
    "empty_file": "Upload the file again, then retry.",
    "not_an_image": "Convert it to JPEG, PNG, GIF, WebP, AVIF, BMP or TIFF, or keep such files out of the source.",
    "truncated": "Upload the whole file again, then retry.",
    "too_many_pixels": "Scale it down, or raise IMAGEMILL_MAX_IMAGE_PIXELS on the workers, then retry.",
    "too_many_bytes": "Compress it, or raise IMAGEMILL_MAX_IMAGE_BYTES on the workers, then retry.",
    "too_many_frames": "Cut the sequence into shorter ones.",
    "not_found": "Put the object back, then retry.",
    "access_denied": "Let the workers' key read the object, then retry.",
    "fetch_failed": "See whether the address answers, then retry.",
    "address_refused": "Copy the image into the bucket, or let workers reach the address with IMAGEMILL_FETCH_ALLOW.",
    "decode_failed": "Save the image anew with another program, then retry.",
    "decode_timeout": "Save the image anew with simpler compression, or smaller, then retry.",
    "inference_failed": "Label it with another version of the model; if that fails too, report the image.",
    "worker_killed": "Keep the image away from other programs too; save it anew, or keep it out of the source.",
}
"""What a person can do about an image with each code, in one sentence."""


def code_of(error: ImagemillError | type[ImagemillError]) -> str:
    """Return the code of an error: that of a bad image, or the name of its class, as `unknown_job`."""
    kind = error if isinstance(error, type) else type(error)
    if issubclass(kind, ImageError):
        return kind.code
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
