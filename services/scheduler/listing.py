"""Which jobs a list has, and where its pages end. jobs_rpc.py asks."""

import base64
import binascii
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from services.scheduler import labels
from services.scheduler.jobs import Job, JobState

LARGEST_PAGE = 1000
"""Jobs of one answer: with their runs they stay well below gRPC's 4 MiB for most."""

LONGEST_SEARCH = 1000
"""Characters of a search; words of names and statements are shorter."""


@dataclass(frozen=True, slots=True)
class Question:
    """What jobs have to be to be listed; raises ValueError with a sentence for a wrong one."""

    search: str = ""
    states: Collection[JobState] = ()
    selector: str = ""

    def __post_init__(self) -> None:
        if len(self.search) > LONGEST_SEARCH:
            raise ValueError(f"A search has at most {LONGEST_SEARCH} characters.")
        labels.selector(self.selector)

    def choose(self, jobs: Sequence[Job]) -> list[Job]:
        """Return the jobs that fit, in their order."""
        fits = labels.selector(self.selector)
        words = self.search.casefold().split()
        return [
            job
            for job in jobs
            if (not self.states or job.state in self.states)
            and fits(job.spec.labels)
            and all(word in _text(job) for word in words)
        ]

    @property
    def digest(self) -> str:
        """Tells one question from another."""
        text = json.dumps([self.search, sorted(self.states), self.selector])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def page(question: Question, jobs: Sequence[Job], size: int, token: str) -> tuple[list[Job], str]:
    """Return the jobs of one page, and the token of the next; "" is the first, or none.

    Jobs that come or go between two pages neither repeat nor hide others. Raises ValueError.
    """
    if not 0 <= size <= LARGEST_PAGE:
        raise ValueError(f"{size} is out of range: 1 to {LARGEST_PAGE} jobs, where 0 is the most.")
    last = _read(token, question) if token else None
    found = [job for job in question.choose(jobs) if last is None or _place(job) > last]
    size = size or LARGEST_PAGE
    rest = found[size:]
    return found[:size], _token(question, found[size - 1]) if rest else ""


def _place(job: Job) -> tuple[str, str]:
    """Return what jobs are sorted by."""
    return job.create_time.isoformat(timespec="microseconds"), job.name


def _token(question: Question, job: Job) -> str:
    text = json.dumps([question.digest, *_place(job)])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _read(token: str, question: Question) -> tuple[str, str]:
    try:
        digest, time, name = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise ValueError("This is no page token of a list of jobs.") from None
    if digest != question.digest or not (isinstance(time, str) and isinstance(name, str)):
        raise ValueError("This page token belongs to another question; ask the same one with it.")
    return time, name


def _text(job: Job) -> str:
    spec = job.spec
    pairs = [f"{key}={value}" for key, value in spec.labels.items()]
    return "\n".join([spec.name, spec.kfl, spec.expanded_kfl, spec.description, *pairs]).casefold()
