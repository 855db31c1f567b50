"""The credentials that requests to the object store are signed with: those of the settings, or those of the machine.

Without an access key the SDK's chain is asked: AWS variables, the credentials file, a web identity (IRSA), the role of
a container, and last that of an EC2 machine. They expire, and the chain renews them.
"""

from __future__ import annotations

import threading

import urllib3
from minio.credentials.credentials import Credentials
from minio.credentials.providers import AWSConfigProvider, EnvAWSProvider, IamAwsProvider, Provider, StaticProvider

from contract.errors import CredentialsRefused
from contract.settings import Settings

# Addresses of roles are next door or not there at all.
_ROLES = urllib3.PoolManager(timeout=urllib3.Timeout(connect=1, read=5), retries=urllib3.Retry(1, backoff_factor=0.2))


class MachineCredentials(Provider):
    """The first of the chain that has credentials; safe to use from many threads."""

    def __init__(self) -> None:
        self._chain: list[Provider] = [EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider(http_client=_ROLES)]
        self._found: Provider | None = None
        self._lock = threading.Lock()

    def retrieve(self) -> Credentials:
        """Return credentials that are valid now; raises CredentialsRefused if there are none."""
        with self._lock:
            for provider in self._chain if self._found is None else (self._found,):
                try:
                    credentials = provider.retrieve()
                except (ValueError, KeyError, OSError, urllib3.exceptions.HTTPError):
                    continue
                self._found = provider
                return credentials
        if self._found is not None:
            raise CredentialsRefused(
                "The credentials of this machine for the object store cannot be renewed now; look at its role.",
                retryable=True,
            )
        raise CredentialsRefused(
            "There are no credentials for the object store: set IMAGEMILL_S3_ACCESS_KEY and IMAGEMILL_S3_SECRET_KEY, "
            "or give this machine a role."
        )


def credentials_of(settings: Settings) -> Provider:
    """Return the keys of the settings, or what provides those of the machine."""
    if not settings.s3_access_key:
        return MachineCredentials()
    return StaticProvider(
        settings.s3_access_key,
        settings.s3_secret_key.get_secret_value(),
        settings.s3_session_token.get_secret_value() or None,
    )
