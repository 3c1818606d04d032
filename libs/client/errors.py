"""What can become of a call.

ServiceError
├── CallRefused   the service refused it; says what was wrong, where, and what to do instead
└── NoAnswer      no service answers at the address, or not in time
"""

from __future__ import annotations

from evenkeel.contracts.http.messages import Problem
from evenkeel.libs.errors import EvenkeelError


class ServiceError(EvenkeelError):
    """A service refused a call, or does not answer."""


class CallRefused(ServiceError):
    """The service refused the call. The attributes are the problem document's (RFC 9457); `problem` is all of it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.detail} {problem.fix}" if problem.fix else problem.detail)
        self.problem = problem
        self.status, self.title, self.detail = problem.status, problem.title, problem.detail
        self.field, self.fix = problem.field, problem.fix


class NoAnswer(ServiceError):
    """Nothing came back, or nothing that is an answer. Whether the call was carried out is not known, unless the message
    says that nobody was reached."""
