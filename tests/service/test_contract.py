"""The running service against its own description: what /openapi.json does not list is never answered."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from schemathesis.config import (
    ChecksConfig,
    GenerationConfig,
    OperationConfig,
    OperationsConfig,
    PhasesConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
    StatefulPhaseConfig,
)
from schemathesis.config._checks import NegativeDataRejectionConfig
from schemathesis.core.failures import Failure
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import Interaction, ScenarioRecorder

from tests.kit.places import PROGRAMS
from tests.kit.services import Services

MIN_REQUESTS = 1000
EXAMPLES = 180  # for each of the calls that take anything
RESTARTS = 40  # fewer: each may start a process
REJECTIONS = ["400", "401", "403", "404", "405", "409", "413", "415", "429"]  # 413 too: a long command may be too large
# gunicorn itself refuses a longer request line (`limit_request_line`), before the application could answer.
LONGEST_REQUEST_LINE = 4094


def configuration(url: str) -> SchemathesisConfig:
    """Return what to generate: the same requests each time, valid and invalid ones, and no fewer after a failure."""
    restart = OperationConfig.from_dict({"include-path": "/restart", "generation": {"max-examples": RESTARTS}})
    project = ProjectConfig(
        base_url=url,
        continue_on_failure=True,
        request_timeout=20,
        generation=GenerationConfig(deterministic=True, max_examples=EXAMPLES, database="none", no_shrink=True),
        operations=OperationsConfig(operations=[restart]),
        # Valid in form is not valid for the machine: a directory may not exist, and a schema can't say "not both", as
        # /logs needs for its limits, and /kill and /restart for a query and a body, each of which is valid by itself.
        checks=ChecksConfig(
            positive_data_acceptance=PositiveDataAcceptanceConfig(enabled=False),
            negative_data_rejection=NegativeDataRejectionConfig(expected_statuses=REJECTIONS),
        ),
        # No call names anything that another call takes.
        phases=PhasesConfig(stateful=StatefulPhaseConfig(enabled=False)),
    )
    return SchemathesisConfig(seed=1, projects=ProjectsConfig(default=project))


def reaches_the_application(interaction: Interaction) -> bool:
    """Tell whether gunicorn hands the request on."""
    target = interaction.request.uri.split("/", 3)[3]
    return len(f"{interaction.request.method} /{target} HTTP/1.1\r\n") <= LONGEST_REQUEST_LINE


def failures(recorder: ScenarioRecorder) -> Iterator[str]:
    """Yield what was wrong with the answers of one scenario, with a command that shows it again."""
    for case_id, checks in recorder.checks.items():
        interaction = recorder.interactions.get(case_id)
        if interaction is not None and not reaches_the_application(interaction):
            continue
        for check in checks:
            if check.failure_info is not None:
                failure: Failure = check.failure_info.failure
                yield f"{check.name}: {failure}\n{check.failure_info.code_sample[:500]}"


def test_answers_are_as_described(serve: Services, tmp_path: Path) -> None:
    """Of 1,000 requests none gets a 5xx, a status, type or body that the description does not list."""
    shell = tmp_path / "no_shell"
    shutil.copy(PROGRAMS / "no_shell.sh", shell)
    shell.chmod(0o755)
    service = serve(settings={"LLM_SHELL_SHELL": str(shell)})  # so that no generated text is ever executed
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json", config=configuration(service.url))

    statuses: Counter[int] = Counter()
    faults: list[str] = []
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            interactions = event.recorder.interactions.values()
            statuses.update(each.response.status_code for each in interactions if each.response is not None)
            faults += failures(event.recorder)
        elif isinstance(event, events.NonFatalError | events.FatalError):
            pytest.fail(f"schemathesis could not go on: {event}")

    assert not faults, "\n\n".join(faults[:10])
    assert statuses.total() >= MIN_REQUESTS, statuses
    # Or the above would say little: the calls did something, and refused something.
    assert {200, 201, 400, 404, 405, 409} <= set(statuses)
    assert service.workers, "the worker is gone"
