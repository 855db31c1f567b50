"""The tree of errors."""

import inspect

from contract import errors


def classes() -> list[type[errors.ImagemillError]]:
    return [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.ImagemillError)]


def test_the_module_tells_its_whole_tree() -> None:
    assert errors.__doc__ is not None
    for cls in classes():
        assert cls.__name__ in errors.__doc__
        assert cls.__doc__


def test_only_services_memory_and_limits_are_worth_a_retry() -> None:
    retryable = {c.__name__ for c in classes() if c.retryable}
    assert retryable == {
        "ServiceUnavailable",
        "RedisUnavailable",
        "StoreUnavailable",
        "Overloaded",
        "Expired",
        "OnlineFailed",
        "CredentialsRefused",
        "DeviceOutOfMemory",
        "TooManyRequests",
    }


def test_codes_are_stable() -> None:
    """These stand in users' files: a change breaks their queries."""
    assert set(errors.IMAGE_ERRORS) == {
        "empty_file",
        "not_an_image",
        "truncated",
        "too_many_pixels",
        "too_many_bytes",
        "too_many_frames",
        "not_found",
        "access_denied",
        "fetch_failed",
        "address_refused",
        "decode_failed",
        "decode_timeout",
        "inference_failed",
        "worker_killed",
    }
    assert all(cls.code == code for code, cls in errors.IMAGE_ERRORS.items())
