"""How many descriptors the service may open, and how many its commands: what the operator's limit was."""

import resource

# Enough for every connection that waits, and no cause for anything that goes through all possible descriptors.
MOST = 65_536
_lifted: list[int] = []


def lift_limit() -> int:
    """Raise this process's soft limit as far as it may and as far as is of use; return what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        _lifted[:] = [soft]
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MOST if soft == resource.RLIM_INFINITY else soft


def limit_of_commands() -> int:
    """Return the soft limit that commands are to have: this process's, before it was raised."""
    return _lifted[0] if _lifted else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
