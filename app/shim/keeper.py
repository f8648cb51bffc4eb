"""The shim's one loop: whatever happens to a run is an event in it, and every change is written down and told."""

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterator

import msgspec

from app.linux.proc import Identity, Member
from app.log.clock import format_time
from app.protocol.messages import Kill, Killed
from app.runs.record import OVERTAKING, Intent, RecordFile, RunRecord, State, record_path
from app.shim.adopted import Foster
from app.shim.listener import Switchboard
from app.shim.log_writer import LogWriter
from app.shim.owned import Offspring
from app.shim.stdio import Pump
from app.shim.stopping import Ending

# How often counts of trouble are told while they grow.
TROUBLE_INTERVAL = 1.0
UNKNOWN_CODE = "Its shim was killed and nobody else could tell its exit code."


class Keeper:
    """Own one run's pipe, log, record and tree. Single-threaded."""

    def __init__(
        self,
        record: RunRecord,
        process: Identity,
        offspring: Offspring | Foster,
        pipe: int | None,
        listener: socket.socket,
    ) -> None:
        self._record = record
        self._process = process
        self._offspring = offspring
        self._state = record.state
        self._changed = True
        self._file = RecordFile(record_path(record.log_file), record.log_mode)
        self._writer = LogWriter(record.log_file, record.clock, mode=record.log_mode, max_bytes=record.log_max_bytes)
        self._pump = Pump(pipe, self._writer)
        self._ending: Ending | None = None
        self._waiters: list[tuple[socket.socket, Kill]] = []
        self._trouble_told_at = 0.0
        # A shim that takes over goes on from what the dead one had counted.
        self._told_before = {kind: record.state.trouble.get(kind, 0) for kind in ("dropped_lines", "failed_writes")}
        self._switchboard = Switchboard(listener, self._kill, self._greet)
        self._poller = select.poll()
        self._handlers: dict[int, Callable[[], object]] = {
            self._switchboard.fd: self._switchboard.serve,
            offspring.fd: self._reap,
        }
        self._pipe = pipe
        if pipe is not None:
            self._handlers[pipe] = self._pump.move
        for fd in self._handlers:
            self._poller.register(fd, select.POLLIN)

    def add_link(self, link: socket.socket) -> None:
        """Serve the supervisor at the other end of this connection."""
        self._switchboard.add(link)

    def _greet(self) -> tuple[State, int | None]:
        """Return what a supervisor hears first; by then the record is whole, whatever somebody did to it."""
        self._name_members()
        self._write_record()
        return self._state, self._pump.fd

    def resume(self) -> None:
        """Go on where a dead shim stopped: tell what can't be had any more, and finish the ending that was begun."""
        self._count("takeovers")
        if self._state.output_open and not self._pump.open:
            self._count("output_lost")
            self._writer.finish()
            self._notice_end_of_output()  # whoever is greeted with the one must not miss the other
        intent = self._record.intent
        if intent is not None:
            left = (intent.kill_at_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9
            known = self._record.members
            self._ending = self._new_ending()
            if intent.signal == "SIGKILL":
                self._ending.kill()
            else:
                self._ending.resume(intent.told, known, time.monotonic() + left)

    def run(self) -> None:
        """Serve events until the run has ended."""
        for _state in self.states():
            pass
        self.close()

    def states(self) -> Iterator[State]:
        """Serve events, and yield the state after each, until the run has ended."""
        self._reap()
        self._settle()
        yield self._state
        while not self._state.ended:
            for fd, _events in self._poller.poll(self._patience()):
                # One event may have ended what another, of the same poll, was about.
                self._handlers.get(fd, bool)()
            self._settle()
            yield self._state

    def close(self) -> None:
        """Hang up on everybody and close what is open, whether the run has ended or not."""
        if self._state.ended:
            with contextlib.suppress(OSError):  # the record itself is whole
                self._file.fill_spare(self._record)
        self._switchboard.close()
        self._pump.close()
        self._writer.close()

    def _settle(self) -> None:
        """Draw the conclusions of what has just happened, write them down and tell them."""
        now = time.monotonic()
        self._writer.flush_due(now)
        answers = self._advance_ending(now)
        self._notice_trouble(now)
        self._conclude()
        self._publish()
        # After the state: whoever gets the answer to a kill knows the outcome already.
        for link, answer in answers:
            self._switchboard.send(link, answer)

    def _patience(self) -> float | None:
        """Return how many milliseconds the next poll may wait; None means until something happens."""
        instants = (
            self._writer.deadline,
            self._ending.wake_at if self._ending else None,
            self._trouble_told_at + TROUBLE_INTERVAL if self._untold_trouble() else None,
        )
        due = [instant for instant in instants if instant is not None]
        if not due:
            return None
        # Rounded up: a poll that returns a fraction too early would spin until the deadline has really come.
        return max(0.0, (min(due) - time.monotonic()) * 1000 + 1)

    def _reap(self) -> None:
        if self._ending is not None:
            self._ending.stir()
        for pid, code in self._offspring.ended():
            if pid != self._process.pid or self._state.stopped_at is not None:
                continue
            stopped_at = format_time(self._record.clock.now_ns())
            # The last line must be readable by whoever learns of the exit.
            self._pump.drain()
            self._pump.show_unfinished()
            self._name_members()
            self._change(stopped_at=stopped_at, exit_code=code, unknown=UNKNOWN_CODE if code is None else None)

    def _conclude(self) -> None:
        """Close the run when its tree is gone: the dead write no more, so what the pipe holds now is all there is."""
        if self._offspring.gone and not self._state.ended:
            self._pump.drain()
            self._pump.close()
            self._change(ended=True)

    def _kill(self, link: socket.socket, request: Kill) -> None:
        self._reap()
        if self._offspring.gone:
            self._settle()
            self._switchboard.send(link, Killed(request.id, found=False))
            return
        self._waiters.append((link, request))
        if request.cause in OVERTAKING:
            self._change(orders=self._state.orders + 1)
        deadline = time.monotonic() + request.timeout
        if self._ending is None:
            self._begin_ending(request, deadline)
        else:
            self._join_ending(self._ending, request, deadline)

    def _begin_ending(self, request: Kill, deadline: float) -> None:
        left = deadline - time.monotonic()
        kill_at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(left * 1e9)
        self._record.intent = Intent(request.signal, kill_at_ns, request.cause)
        self._blame(request)
        self._ending = self._new_ending()
        if request.signal == "SIGTERM":
            self._ending.terminate(deadline)
            return
        self._name_members()
        # On disk before the first signal, as below.
        self._publish()
        self._ending.kill()

    def _new_ending(self) -> Ending:
        output = os.fstat(self._pipe).st_ino if self._pump.open and self._pipe is not None else None
        return Ending(self._offspring, self._process, output=output, note=self._note_told)

    def _note_told(self, members: list[Member], told: list[Identity]) -> None:
        """Write down who gets SIGTERM, before it is sent.

        Whoever takes over in the middle can tell what was begun, finishes it, and sends it to nobody twice.
        """
        self._record.members = [member.identity for member in members]
        if self._record.intent is not None:
            self._record.intent = msgspec.structs.replace(self._record.intent, told=told)
        self._changed = True
        self._publish()

    def _join_ending(self, ending: Ending, request: Kill, deadline: float) -> None:
        if request.cause in OVERTAKING:
            self._blame(request)
        if request.signal == "SIGKILL":
            ending.escalate()
        else:
            ending.hasten(deadline)

    def _blame(self, request: Kill) -> None:
        """Remember whose doing the end is, unless the process ended before any signal of ours."""
        if self._state.stopped_at is None:
            self._change(killed_by=request.cause)
        self._changed = True

    def _advance_ending(self, now: float) -> list[tuple[socket.socket, Killed]]:
        """Do what an ending under way needs; return the answers to be given when it is over."""
        ending = self._ending
        if ending is None or not (self._offspring.gone or ending.advance(now)):
            return []
        if not self._offspring.gone:
            self._reap()  # an end that the last look has shown already may not have been told yet
        survivors = [] if self._offspring.gone else self._survivors()
        refused = {identity.pid for identity in ending.refused}.intersection(survivors)
        overtaken = any(request.cause in OVERTAKING for _link, request in self._waiters)
        answers = [
            (
                link,
                Killed(
                    request.id,
                    found=True,
                    escalated=ending.escalated,
                    survivors=survivors,
                    overtaken=overtaken and request.cause not in OVERTAKING,
                    refused=sorted(refused),
                ),
            )
            for link, request in self._waiters
        ]
        self._waiters.clear()
        self._ending = None
        self._record.intent = None
        self._change(escalated=ending.escalated)
        if self._process.pid in refused and self._state.stopped_at is None:
            self._change(killed_by=None)  # no signal of ours has reached it
        return answers

    def _survivors(self) -> list[int]:
        """Return who outlived an ending; of those whom `/proc` does not show (hidepid, proc(5)) it can only be told."""
        survivors = sorted(member.pid for member in self._offspring.members())
        if not survivors:
            self._reap()  # who ended just now is no survivor
            if not self._offspring.gone:
                self._count("unseen_survivors")
        return survivors

    def _notice_trouble(self, now: float) -> None:
        """Take over the writer's counts, at intervals: during a fault they grow with every line."""
        untold = self._untold_trouble()
        if untold and (now - self._trouble_told_at >= TROUBLE_INTERVAL or self._offspring.gone):
            self._trouble_told_at = now
            self._change(trouble=self._state.trouble | untold)

    def _untold_trouble(self) -> dict[str, int]:
        counts = {
            "dropped_lines": self._told_before["dropped_lines"] + self._writer.dropped_lines,
            "failed_writes": self._told_before["failed_writes"] + self._writer.failed_writes,
        }
        return {kind: count for kind, count in counts.items() if count > self._state.trouble.get(kind, 0)}

    def _count(self, kind: str) -> None:
        self._change(trouble=self._state.trouble | {kind: self._state.trouble.get(kind, 0) + 1})

    def _change(self, **fields: object) -> None:
        self._state = msgspec.structs.replace(self._state, **fields)
        self._changed = True

    def _publish(self) -> None:
        """Write the record and tell every supervisor, if anything changed."""
        self._notice_end_of_output()
        if not self._changed:
            return
        self._write_record()
        self._changed = False
        self._switchboard.tell_all(self._state)

    def _name_members(self) -> None:
        """Put the tree into the record: should this shim be killed, a service that is no ancestor of it needs that."""
        self._record.members = [member.identity for member in self._offspring.members()]

    def _write_record(self) -> None:
        self._record.state = self._state
        try:
            self._file.write(self._record)
        except OSError:  # whatever somebody did to the directory: the run goes on, and the next change tries again
            self._count("failed_records")

    def _notice_end_of_output(self) -> None:
        if self._pump.open or not self._state.output_open:
            return
        self._change(output_open=False)
        if self._pipe is not None:
            self._poller.unregister(self._pipe)
            del self._handlers[self._pipe]
