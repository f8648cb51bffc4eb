"""The fixtures of the tests against a real gunicorn."""

from tests.kit.fixtures import serve, service, shared_service

__all__ = ["serve", "service", "shared_service"]
