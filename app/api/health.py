"""Runs in the worker: the call that shows that the service is up."""

from typing import Any

from marshmallow import fields, validate

from app.api import examples
from app.api.context import supervisor
from app.version import __version__
from app.web.answers import AnswerSchema
from app.web.openapi import fails_with
from app.web.parsing import Blueprint, refuse_parameters


class HealthSchema(AnswerSchema):
    """The service's own state."""

    status = fields.String(required=True, validate=validate.Equal("healthy"))
    version = fields.String(required=True)
    uptime = fields.Integer(required=True, metadata={"description": "Whole seconds since the service came up."})


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
