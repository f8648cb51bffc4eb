"""Whether a start asks for what runs already, told by the names of what differs."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from app.linux.proc import Identity
from app.runs.spec import Spec, differences
from app.supervisor.refusals import unlike
from app.supervisor.run import Run
from tests.kit.records import make_record

LIVE = Spec("npm run dev", "/srv", {"NODE_ENV": "production", "KEY": "s3cr3t"}, "/bin/bash", account="1 1")
OTHERS = {"command": "npm start", "cwd": "/", "shell": "/bin/sh", "stdin": "open", "port": 3000}


def test_the_same() -> None:
    """What is the same in all fields, in whatever order its variables are, differs in none."""
    assert differences(replace(LIVE, env=dict(reversed(LIVE.env.items()))), LIVE) == []


@pytest.mark.parametrize("field", OTHERS)
def test_each_field(field: str) -> None:
    """A field that differs is named."""
    assert differences(replace(LIVE, **{field: OTHERS[field]}), LIVE) == [field]


def test_every_field_is_compared() -> None:
    """No field that a start may ask for is forgotten, a later one neither; the settings' user is none."""
    assert {*OTHERS, "env", "account"} == set(Spec.__struct_fields__)
    assert differences(replace(LIVE, account=""), LIVE) == []


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({}, ["env.KEY", "env.NODE_ENV"]),
        ({**LIVE.env, "KEY": "another"}, ["env.KEY"]),
        ({**LIVE.env, "PORT": "3000"}, ["env.PORT"]),
        ({"KEY": "s3cr3t", "node_env": "production"}, ["env.NODE_ENV", "env.node_env"]),
    ],
)
def test_variables_by_their_names(env: dict[str, str], names: list[str]) -> None:
    """Of the environment the variables that differ are named, wherever they are missing."""
    assert differences(replace(LIVE, env=env), LIVE) == names


def test_all_that_differs_at_once() -> None:
    """All fields are named, the environment last."""
    asked = Spec("other", "/", {"A": "1"}, "/bin/sh", stdin="open")
    assert differences(asked, LIVE) == ["command", "cwd", "shell", "stdin", "env.A", "env.KEY", "env.NODE_ENV"]


@pytest.mark.parametrize(
    ("port", "env", "variables"),
    [(0, {"A": "1"}, {"A": "1"}), (3000, {}, {"PORT": "3000"}), (3000, {"PORT": "4000"}, {"PORT": "4000"})],
)
def test_the_port_is_a_variable(port: int, env: dict[str, str], variables: dict[str, str]) -> None:
    """The command is told its port by PORT, unless its caller has told it otherwise."""
    assert Spec("", env=env, port=port).variables() == variables


def test_the_refusal_names_a_few_and_no_value() -> None:
    """Of many, and long, names a few are told, cut; never what a variable holds."""
    asked = replace(LIVE, cwd="/", env={f"{'N' * 500}{number}": "s3cr3t too" for number in range(500)})
    run = Run(make_record(process=Identity(42, 1)))
    error = unlike(run, differences(asked, LIVE))
    assert error.detail.startswith("A process is already running (pid 42), but differs in cwd, env.KEY, env.")
    assert " and 498 more: " in error.detail
    assert error.extra["more"] == 498
    assert len(str(error.extra["differing"])) < 500
    assert "s3cr3t" not in f"{error.detail} {error.extra}"
    assert len(error.detail) < 700
    assert error.extra["run_id"] == run.record.run_id


def test_the_refusal_of_one() -> None:
    """It says what to do."""
    error = unlike(Run(make_record(process=Identity(42, 1))), ["env.NODE_ENV"])
    assert error.detail == (
        "A process is already running (pid 42), but differs in env.NODE_ENV: send what it was started with, call /kill "
        'first, or send "replace": true.'
    )
    assert (error.extra["differing"], error.extra["more"]) == (["env.NODE_ENV"], 0)


def test_no_name_passes_for_the_service_s_words() -> None:
    """A variable's name is its caller's: what is not printable in it is escaped."""
    assert "env.A\\nB:" in unlike(Run(make_record()), ["env.A\nB"]).detail
