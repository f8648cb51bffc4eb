"""The call that tells that the service is up."""

from __future__ import annotations

from typing import Any

from app import __version__
from app.api import examples
from app.api.context import supervisor
from app.api.openapi import fails_with
from app.api.parsing import Blueprint, refuse_parameters
from app.api.schemas import HealthSchema

blueprint = Blueprint("health", __name__, description="Tell that the service is up.")


@blueprint.get("/health")
@blueprint.response(200, HealthSchema, description="The service is up.", example=dict(examples.HEALTHY))
@blueprint.doc(security=[])
@fails_with(examples.HEALTH)
def get_health() -> dict[str, Any]:
    """Tell that the service is up

    Never needs a token.
    """
    refuse_parameters()
    return {"status": "healthy", "version": __version__, "uptime": supervisor.uptime()}
