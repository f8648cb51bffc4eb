"""Runs in the worker: serve the OpenAPI document, and a page that renders it without network access."""

from contextlib import ExitStack
from pathlib import Path

import flask
from flask import Response
from flask_smorest import current_api
from swagger_ui_bundle import swagger_ui_path

from app.api import examples
from app.web.lingering import LONG_ANSWER_BYTES
from app.web.openapi import fails_with
from app.web.parsing import Blueprint, refuse_parameters
from app.web.places import long_answer

_OWN_FILES = Path(__file__).with_name("static")
_PAGE = (_OWN_FILES / "docs.html", "text/html")
_ASSETS = {
    "docs.js": (_OWN_FILES / "docs.js", "text/javascript"),
    "docs.css": (_OWN_FILES / "docs.css", "text/css"),
    "swagger-ui.css": (Path(swagger_ui_path) / "swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": (Path(swagger_ui_path) / "swagger-ui-bundle.js", "text/javascript"),
}
# Swagger UI draws its icons from data: URLs; scripts and styles come from files only.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# Served without a token: the same in every installation, and a browser has no token before it has the page.
PATHS = frozenset({"/openapi.json", "/docs", *(f"/docs/{name}" for name in _ASSETS)})

blueprint = Blueprint("docs", __name__, description="The API's description of itself.")
assets = flask.Blueprint("assets", __name__)


@blueprint.get("/openapi.json")
@blueprint.response(200, {"type": "object"}, description="An OpenAPI 3.0 document.")
@blueprint.doc(security=[])
@fails_with(examples.OPENAPI)
def get_openapi() -> Response:
    """Describe this API as an OpenAPI document

    Never needs a token.
    """
    refuse_parameters()
    servers = [{"url": flask.request.script_root or "/"}]  # a proxy's prefix
    return flask.jsonify(current_api.spec.to_dict() | {"servers": servers})


@blueprint.get("/docs")
@blueprint.response(200, {"type": "string"}, content_type="text/html", description="A page for people.")
@blueprint.doc(security=[])
@fails_with(examples.DOCS)
def get_docs() -> Response:
    """Show this API's description as a page, with no network needed

    Never needs a token; its "Authorize" takes the token for the calls that do.
    """
    refuse_parameters()
    return _send(*_PAGE)


@assets.get("/docs/<name>")
def get_asset(name: str) -> Response:
    """Return one of the few files that the page needs."""
    if name not in _ASSETS:
        flask.abort(404)
    return _send(*_ASSETS[name])


def _send(path: Path, media_type: str) -> Response:
    """Answer with a file; a large one takes a place, since a slow client holds a thread."""
    with ExitStack() as resources:
        if path.stat().st_size > LONG_ANSWER_BYTES:
            resources.enter_context(long_answer())
        response = Response(path.read_bytes(), mimetype=media_type)
        response.call_on_close(resources.pop_all().close)
    response.headers["Content-Security-Policy"] = _POLICY
    return response
