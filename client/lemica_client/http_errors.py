"""What becomes of the errors of either HTTP client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tritonclient.utils import InferenceServerException

from lemica_client.connection import Address
from lemica_client.errors import RequestTimeoutError, ServerUnavailableError, ServerUnreachableError, error_from_status

Kinds = tuple[type[BaseException], ...]


class HttpErrors(NamedTuple):
    """What one HTTP client raises.

    Attributes
    ----------
    late : tuple of type
        When time is up.
    lost : tuple of type
        When there is no connection, or none any more.
    before : tuple of type
        Of the lost ones, those that come before a request is sent; all others may come afterwards.
    """

    late: Kinds
    lost: Kinds
    before: Kinds

    @contextmanager
    def told(self, address: Address, timeout_s: float) -> Iterator[None]:
        """Raise the errors of the body as this package's own."""
        try:
            yield
        except InferenceServerException as exc:
            raise error_from_status(exc.status(), exc.message() or str(exc)) from exc
        except self.late as exc:
            raise RequestTimeoutError(f"no answer from {address} within timeout_s ({timeout_s:.3g} s)") from exc
        except self.before as exc:
            raise ServerUnreachableError(f"no server can be reached at {address}: {exc}") from exc
        except self.lost as exc:
            reason = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
            raise ServerUnavailableError(f"{address}: {reason}", may_be_running=True) from exc
