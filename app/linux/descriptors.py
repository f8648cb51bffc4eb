"""Runs in the worker, and in the zygote's rehearsal: the limits on descriptors of the service and of its commands."""

import resource

# Enough for every connection that waits, and not too many for a library that loops over all possible descriptors.
MOST = 65_536
_lifted: list[int] = []


def lift_limit() -> int:
    """Raise this process's soft limit to the hard limit, or to `MOST` where that is less; return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        _lifted[:] = [soft]
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MOST if soft == resource.RLIM_INFINITY else soft


def limit_of_commands() -> int:
    """Return the soft limit of commands: this process's, from before it was raised."""
    return _lifted[0] if _lifted else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
