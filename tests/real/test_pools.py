"""A pool of workers that shuts down warmly finishes the tasks under way, if only its head is told to end."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.waiting import wait_until
from tests.real.conftest import needs
from tests.real.trying import PYTHON_TOOLS, Trial

GRACE = 20.0
TASK_SECONDS = 3
PYTHON = PYTHON_TOOLS / "python"

CELERY_TASKS = f"""
import pathlib, time
import celery

app = celery.Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = dict(data_folder_in="broker", data_folder_out="broker", control_folder="broker")
app.conf.worker_hijack_root_logger = False

@app.task
def work(name):
    pathlib.Path(f"{{name}}.begun").touch()
    time.sleep({TASK_SECONDS})
    pathlib.Path(f"{{name}}.done").touch()
"""
RQ_JOBS = f"""
import pathlib, time

def work(name):
    pathlib.Path(f"{{name}}.begun").touch()
    time.sleep({TASK_SECONDS})
    pathlib.Path(f"{{name}}.done").touch()
"""


def run_python(trial: Trial, code: str) -> None:
    """Run code beside the trial's modules with the Python that has the tools."""
    subprocess.run([str(PYTHON), "-c", code], cwd=trial.folder, check=True, timeout=30, capture_output=True)


def test_celery_finishes_both_tasks(trial: Trial) -> None:
    """Two tasks under way are finished within the grace, and celery's worker ends with 0, all by itself."""
    needs("celery")
    (trial.folder / "tasks.py").write_text(CELERY_TASKS)
    (trial.folder / "broker").mkdir()
    run_python(trial, "from tasks import work; work.delay('one'); work.delay('two')")
    trial.start("exec celery -A tasks worker --pool prefork --concurrency 2 --loglevel INFO --without-mingle")
    wait_until(lambda: len(list(trial.folder.glob("*.begun"))) == 2, 30)

    outcome = trial.kill(GRACE)

    assert len(list(trial.folder.glob("*.done"))) == 2
    assert outcome.code == 0
    assert outcome.gentle
    assert TASK_SECONDS - 1 < outcome.seconds < GRACE - 5
    assert "Warm shutdown" in trial.printed


@pytest.fixture
def redis(trial: Trial) -> Iterator[Path]:
    """Run a Redis of this test's own and return its socket."""
    needs("redis-server")
    path = trial.folder / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(trial.folder)]
    server = subprocess.Popen(
        [str(shutil.which("redis-server")), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd=trial.folder,
        env={"PATH": os.environ["PATH"]},
    )
    wait_until(path.exists)
    yield path
    server.terminate()
    server.wait(10)


def test_rq_finishes_its_job(trial: Trial, redis: Path) -> None:
    """The job under way is finished within the grace, the one behind it is left for the next worker."""
    needs("rq")
    (trial.folder / "jobs.py").write_text(RQ_JOBS)
    url = f"unix://{redis}"
    queue = f"import redis, rq, jobs; q = rq.Queue(connection=redis.Redis.from_url({url!r})); "
    run_python(trial, queue + "q.enqueue(jobs.work, 'one'); q.enqueue(jobs.work, 'two')")
    trial.start(f"exec rq worker --url {url}", env={"PYTHONPATH": str(trial.folder)})
    trial.file("one.begun")

    outcome = trial.kill(GRACE)

    assert (trial.folder / "one.done").exists()
    assert not (trial.folder / "two.begun").exists()
    assert outcome.code == 0
    assert outcome.gentle
    assert TASK_SECONDS - 1 < outcome.seconds < GRACE - 5
    run_python(trial, queue + "assert q.job_ids == [q.jobs[0].id] and q.jobs[0].args == ('two',)")
