"""The conversation with ExaBGP: which line is said next, and what an answer means.

Theory of operation
===================

The relay stands between two parties that may each die, hang or restart at any time. The daemon says which set of
routes it wants (``RouteSet``), and again and again that it still lives (``Heartbeat``). ExaBGP obeys commands and keeps
the routes, whatever happens to the process that asked for them. The relay makes ExaBGP's routes equal to the wanted
ones, and takes care that no route outlives the proof that the daemon still wants it.

It does no I/O and has no clock. The loop around it carries lines in and out, tells it the time and obeys ``stuck``.

**One command at a time** (``exchange``). The relay sends one command, waits for its answer, and only then chooses the
next one.

**Phases.** A relay begins in ``version`` and moves on by answers alone::

    version ──> acks ──> neighbors ──> routes ──> ready
     │   ^                   ^                     │  │
     v   │                   └─────────────────────┘  │  a session changed its state, or ExaBGP refused a command
   unfit └────────────────────────────────────────────┘  an answer was lost

``version`` asks which ExaBGP this is; anything but 5 is ``unfit``, and nothing is announced through it. ``acks`` makes
sure that every command is answered. ``neighbors`` asks which neighbors are configured, and ``routes`` what ExaBGP has
for each one that was not known before: a bridge that was started again hears nothing of it unasked, and a neighbor
that a reload brings back may still have routes of long ago.

**Ready** is level-triggered. The table of routes (``routes``) keeps the difference between what ExaBGP has acknowledged
and what is wanted. The relay sends the most urgent command and looks again after its answer; an acknowledged command
changes the picture of ExaBGP, and nothing else does. A batch that is refused is sent again one route at a time, so that
a bad route keeps no good one back; a route that is refused by itself is left alone for ``RETRY`` seconds.

**What goes first.** Withdrawals, before any question but the ones of the handshake, so that no flapping session makes
them wait; then questions; then announcements; last, routes whose neighbor has come up again. A command is small
(``grammar.batch``), which bounds how long a withdrawal waits for the command before it.

**Why no route outlives its proof.** There are three chains from a proof to a route, and each of them fails closed:

* *The daemon wants it.* Every valid message of the daemon renews a lease of ``hold`` seconds (``lease``). A connection
  is no proof, a message that cannot be read is no proof, a life that ends again and again is none, and a heartbeat
  counts only for the last set of its own connection. When the lease has run out, the set of wanted routes is empty,
  and everything is withdrawn. Only a new set ends that: a heartbeat says nothing about what the daemon would decide
  now.
* *ExaBGP obeys.* A withdrawal that is not answered within ``ACK_TIMEOUT``, or is refused ``REFUSALS`` times, makes
  ``stuck`` say that ExaBGP must be killed: its sessions end, and its routes with them. An announcement that is not
  answered is only reported, until a route has to leave. An answer that has not come after ``LOST_TIMEOUT`` is lost: the
  handshake begins again, and what was not acknowledged is sent again.
* *The bridge itself lives.* If it dies, ExaBGP starts another one at once, whose lease begins at its start. If it
  hangs, the daemon kills it, because no report comes any more.

The daemon learns all of this from ``report``, which is always complete: a lost report costs a moment.
"""

from __future__ import annotations

from collections.abc import Sequence

from anycastlb.bridge import grammar
from anycastlb.bridge.exchange import LOST_TIMEOUT, Answer, Command, Exchange
from anycastlb.bridge.lease import SHORT_LIVES, STEADY, Lease
from anycastlb.bridge.protocol import Heartbeat, ProtocolError, Report, RouteSet
from anycastlb.bridge.questions import Questions
from anycastlb.bridge.routes import RouteTable
from anycastlb.core.model import Address, Network

ACK_TIMEOUT = 2.0
"""Seconds without a word in answer to a command, after which ExaBGP is late, and ``ACK_TIMEOUT_EACH`` for every route
it announces to every neighbor: when a session comes up, it does nothing else before it has gone through all of them."""
ACK_TIMEOUT_EACH = 50e-6
RETRY = 30.0
"""Seconds until a refused announcement is tried again unasked."""
QUESTION_PAUSE = 1.0
"""Seconds between two questions because of refused announcements, at least."""
REFUSALS = 3
"""Refused withdrawals in a row after which ExaBGP is given up."""
UNSTEADY = (
    f"the daemon has ended {SHORT_LIVES} times in a row within {STEADY:g} s of its start, "
    "and is believed again once it has lived so long"
)


class Relay:
    """The state of the whole bridge. ``hold``: seconds of the lease until the daemon says how long it is."""

    def __init__(self, ranges: Sequence[Network], hold: float, now: float) -> None:
        self.notes: list[str] = []
        """What an operator should read; the loop prints and clears it."""
        self.revision = 0
        """Grows whenever ``report`` may have changed."""
        self._lease = Lease(hold, now)
        self._routes = RouteTable(ranges)
        self._questions = Questions(self._routes, self.notes, now)
        self._exchange = Exchange()
        self._serial = self._done_serial = 0
        """The last set of this connection, and the last one that was dealt with entirely."""
        self._rejected_at = now
        """When ExaBGP last refused a route for good."""
        self._withdrawals_refused = 0

    # ------------------------------------------------------------ the daemon

    def set_ranges(self, ranges: Sequence[Network]) -> None:
        """Replace the networks whose host routes may leave the node."""
        self._routes.admission.change_ranges(ranges)

    def connected(self, now: float) -> None:
        """A connection to the daemon was made, which is no proof of life yet."""
        self._lease.connected(now)
        self._serial = self._done_serial = 0
        self.revision += 1

    def disconnected(self, now: float) -> None:
        """The connection to the daemon has ended."""
        on_trial = self._lease.on_trial
        self._lease.disconnected(now)
        if self._lease.on_trial and not on_trial:
            self.notes.append(f"{UNSTEADY}: see its log")
        self._serial = self._done_serial = 0

    def obey(self, message: RouteSet | Heartbeat, now: float) -> None:
        """The daemon has said this. Raises ``ProtocolError`` for a heartbeat of no set of this connection."""
        if isinstance(message, RouteSet):
            self._take(message)
        elif message.serial != self._serial:  # which is 0 before the first set of a connection
            raise ProtocolError(
                f"beat {message.serial}: expected one of set {self._serial}, the last of this connection"
            )
        elif self._lease.expired and not self._lease.on_trial:
            return  # what was decided before may not be what the daemon would decide now
        if self._lease.renew(now):
            self._routes.suspend(False)
            self.notes.append("the daemon speaks again: its routes are announced again")
            self.revision += 1

    def _take(self, message: RouteSet) -> None:
        self._lease.hold, self._serial = message.hold, message.serial
        self.notes += [f"refused: {reason}" for reason in self._routes.want(message.routes)]
        self.revision += 1

    # ------------------------------------------------------------ ExaBGP

    def hear(self, line: str, now: float) -> None:
        """ExaBGP has said this line: an event, or a piece of the answer to the outstanding command."""
        if line.startswith(("{ ", '{"')):
            event = grammar.event(line)
            if event is not None and self._questions.happened(event, now):
                self.revision += 1
        elif self._exchange.command is None:
            if line:
                self.notes.append(f"ExaBGP said {line[:80]!r}, which answers nothing; ignored")
        elif answer := self._exchange.hear(line, now):
            self.revision += 1
            self._answered(answer, now)

    def _answered(self, answer: Answer, now: float) -> None:
        match answer.command.kind:
            case "announce":
                self._announced(answer, now)
            case "withdraw":
                self._withdrawn(answer)
            case _:
                self._questions.answered(answer, now)
                if not self._routes.leaving:
                    self._withdrawals_refused = 0

    def _announced(self, answer: Answer, now: float) -> None:
        if answer.ok:
            self._routes.done(answer.command)
            return
        if self._routes.failed(answer.command):
            self._rejected_at = now
            self.notes.append(f"ExaBGP answered error to: {answer.command.line[:300]}")
        if now - self._questions.asked_at > QUESTION_PAUSE:  # is the neighbor still configured?
            self._questions.ask_neighbors()

    def _withdrawn(self, answer: Answer) -> None:
        if answer.ok:
            self._withdrawals_refused = 0
            self._routes.done(answer.command)
            return
        self._withdrawals_refused += 1
        self.notes.append(f"ExaBGP answered error to: {answer.command.line[:300]}")
        self._questions.ask_neighbors()

    # ------------------------------------------------------------ what to do

    def tick(self, now: float) -> None:
        """Let time pass; call it after everything that was there to read has been read."""
        if self._lease.tick(now):
            self._routes.suspend(True)
            self._done_serial = 0  # no set is in force any more
            silent = f"no sign of life from the daemon for {self._lease.hold:g} s"
            self.notes.append(f"{UNSTEADY if self._lease.on_trial else silent}: every route is withdrawn")
            self.revision += 1
        if self._exchange.tick(now, self._ack_timeout) and (command := self._exchange.command):
            self.notes.append(f"{self._lateness}: {command.line[:120]}")
            self.revision += 1
        if self._exchange.lost:
            self.notes.append(f"ExaBGP's answer has not come for {LOST_TIMEOUT:g} s: everything is asked again")
            self._exchange.give_up()
            self._questions.restart()
        if self._routes.has_rejected and now - self._rejected_at > RETRY:
            self._routes.retry()

    def next(self, now: float) -> Command | None:
        """The command to send now; it is outstanding from then on. None: nothing to say, or an answer is due."""
        if self._exchange.command:
            return None
        if self._is_done() and self._done_serial != self._serial:
            self._done_serial = self._serial
            self.revision += 1
        if (command := self._choose()) is not None:
            self._exchange.begin(command, now)
        return command

    def _is_done(self) -> bool:
        """Is the last set in effect? Routes that are only announced once more were so before."""
        settled = self._questions.phase in ("ready", "unfit") and not self._lease.expired
        return settled and not self._routes.leaving and not self._routes.missing

    def _choose(self) -> Command | None:
        question = self._questions.next()
        handshake = question is not None and question.kind in ("version", "acks")
        if not handshake and not (question and self._withdrawals_refused) and (first := self._routes.withdrawal()):
            return first
        return question or self._routes.announcement()

    def stuck(self, now: float) -> str:
        """Why ExaBGP must be killed: a route has to leave and ExaBGP does not do it. Empty while all is well."""
        if self._withdrawals_refused >= REFUSALS:
            return f"ExaBGP refused to withdraw {REFUSALS} times in a row"
        command = self._exchange.command
        if not self._exchange.late or not command:
            return ""
        leaving = command.kind == "withdraw" or bool(self._routes.leaving)
        blind = self._lease.expired and self._questions.phase not in ("ready", "unfit")
        if leaving or blind:
            return f"{self._lateness} and routes have to leave"
        return ""

    def report(self) -> Report:
        return Report(
            serial=self._done_serial,
            ready=self._questions.answered_once,
            version=self._questions.version,
            announced=dict(self._routes.announced),
            rejected=self._objections(),
            sessions=tuple(self._questions.sessions.values()),
        )

    def _objections(self) -> dict[Address, str]:
        """Why wanted routes are not announced, or not everywhere."""
        objections = {}
        if self._questions.phase == "unfit":
            reason = f"ExaBGP {self._questions.version} is not supported; install exabgp >=5.0.13,<6"
            objections = dict.fromkeys(self._routes.target or (), reason)
        elif self._questions.phase == "ready":
            for vip in self._routes.uncarried():
                objections[vip] = f"ExaBGP has no neighbor with an IPv{vip.version} session; add one to exabgp.conf"
        objections |= self._routes.objections()
        if self._lease.on_trial:
            objections |= dict.fromkeys(self._routes.withheld, UNSTEADY)
        command = self._exchange.command
        if self._exchange.late and command and command.kind == "announce":
            objections |= dict.fromkeys(command.vips, self._lateness)
        return objections

    @property
    def _ack_timeout(self) -> float:
        return ACK_TIMEOUT + ACK_TIMEOUT_EACH * self._routes.size

    @property
    def _lateness(self) -> str:
        return f"ExaBGP has not answered for {self._ack_timeout:.0f} s"
