"""Who is meant by an expression: checked, counted, expanded, listed, explained."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from pyroaring import BitMap

from tagset import resolve
from tagset.canonical import canonical
from tagset.evaluate import CountedNode, count_tree, evaluate
from tagset.explain import ExplainedNode, explain
from tagset.text import to_text
from tagsvc import expressions, pages
from tagsvc.pages import PeopleToken
from tagsvc.people import MAX_PAGE_SIZE, PAGE_SIZE, People, PeoplePage
from tagsvc.questions import Question, Questions
from tagsvc.workbench import Workbench

CHUNK_ORDINALS = 120 << 16  # of a chunk: 120 containers of 8 KiB at most, so under 1 MiB
T = TypeVar("T")
_HELD = 8  # audiences between two pages of them; each has a megabyte for ten million clients


class Audience:
    """Answers questions about audiences."""

    def __init__(self, questions: Questions, workbench: Workbench, people: People) -> None:
        self._questions = questions
        self._workbench = workbench
        self._people = people
        self._held: OrderedDict[tuple[str, int, int], BitMap] = OrderedDict()

    async def validate(self, text: str) -> tuple[Question, list[str], str]:
        """The expression, all that it names, and its canonical form.

        Raises:
            TidingsError: whatever is wrong with it.
        """
        question = await self._questions.ask(text, 0)
        names, form = await self._work(question, _validated)
        return question, names, form

    async def count(self, text: str, version: int) -> tuple[Question, CountedNode, str]:
        """The expression, its tree with counts, and its canonical form. Raises as `validate`, and SNAPSHOT_GONE."""
        question = await self._questions.ask(text, version)
        tree, form = await self._work(question, _counted)
        return question, tree, form

    async def expand(self, text: str, version: int) -> tuple[Question, BitMap]:
        """The expression, and everybody meant. Raises as `count`."""
        question = await self._questions.ask(text, version)
        return question, await self._work(question, _evaluated)

    async def page(self, text: str, version: int, page_size: int, page_token: str) -> PeoplePage:
        """A page of those meant. Raises as `count`, and INVALID_FIELD for the token."""
        listed = f"audience {text}"
        size = pages.page_size(page_size, PAGE_SIZE, MAX_PAGE_SIZE)
        token = pages.read_people_token(page_token, listed) if page_token else None
        question = await self._questions.ask(text, token.version if token else version, token.known if token else 0)
        token = token or PeopleToken(question.snapshot.version, question.known, 0)
        return await self._people.page(await self._members(question), question.snapshot, listed, token, size)

    async def explain(self, user_id: str, text: str, version: int) -> tuple[Question, ExplainedNode]:
        """The expression, and its tree with whether the user is in each part. Raises as `count`, and UNKNOWN_USER."""
        question, ordinal = await self._questions.ask(text, version), await self._people.ordinal(user_id)
        return question, await self._work(question, partial(_explained, ordinal))

    async def _members(self, question: Question) -> BitMap:
        """Everybody meant; held for the next page when it can't have changed by then."""
        key = (question.text, question.snapshot.version, question.known)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        members = await self._work(question, _evaluated)
        if not question.outcomes:
            self._held[key] = members
            if len(self._held) > _HELD:
                self._held.popitem(last=False)
        return members

    async def _work(self, question: Question, work: Callable[[Question], T]) -> T:
        with expressions.named():
            return await self._workbench.do(partial(work, question), quick=question.quick)


def chunks(members: BitMap) -> Iterator[BitMap]:
    """A bitmap in chunks by ranges of ordinals; at least one, and no other is empty."""
    last = members.max() if members else 0
    found = (members & BitMap(range(first, first + CHUNK_ORDINALS)) for first in range(0, last + 1, CHUNK_ORDINALS))
    yield from filter(None, found) if members else (members,)


def _validated(question: Question) -> tuple[list[str], str]:
    return resolve.names(question.expression, question.snapshot), to_text(canonical(question.expression))


def _counted(question: Question) -> tuple[CountedNode, str]:
    tree = count_tree(question.expression, question.snapshot, question.known, question.users, question.outcomes)
    return tree, to_text(canonical(question.expression))


def _evaluated(question: Question) -> BitMap:
    return evaluate(question.expression, question.snapshot, question.known, question.users, question.outcomes)


def _explained(ordinal: int, question: Question) -> ExplainedNode:
    return explain(ordinal, question.expression, question.snapshot, question.known, question.users, question.outcomes)
