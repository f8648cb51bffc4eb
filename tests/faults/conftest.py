"""The fixtures of the tests against a real gunicorn, for the tests that break something under it."""

from tests.kit.fixtures import serve, service, shared_service

__all__ = ["serve", "service", "shared_service"]
