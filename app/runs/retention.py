"""Runs in the worker: remove all files of a run."""

from pathlib import Path

# The record goes last: as long as it is there, the run is known, and its removal is tried again.
_ENDS = (".1.log", ".log.new", ".log.old", ".log", ".json.new", ".json", ".json.spare")


def remove_files(log_dir: Path, run_id: str) -> bool:
    """Remove the files of a run, by its id; tell whether none is left.

    What can't be removed does not keep the rest.
    """
    left = False
    for end in _ENDS:
        try:
            (log_dir / f"{run_id}{end}").unlink(missing_ok=True)
        except OSError:  # a directory, or no permission: the caller tries again
            left = True
    return not left
