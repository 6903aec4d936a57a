"""Where an answer is in its draft: after words too many, too few and wrong."""

from __future__ import annotations

import random

import pytest

from decoder_service.engines.draft import DraftFollower, remaining

DRAFT = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]


def after(*answer: int, draft: list[int] = DRAFT) -> list[int]:
    """The next three ids that the draft proposes once the answer has these tokens."""
    follower = DraftFollower(draft)
    follower.accept(answer)
    return follower.propose(3)


@pytest.mark.parametrize(
    ("answer", "proposed"),
    [
        ((), [10, 11, 12]),
        ((10, 11), [12, 13, 14]),
        ((10, 99), [12, 13, 14]),  # one wrong token: the draft goes on behind its own
        ((10, 11, 99, 12, 13), [14, 15, 16]),  # one that the draft lacks
        ((10, 11, 14, 15), [16, 17, 18]),  # two that only the draft has
        ((10, 98, 99, 13, 14, 15, 16, 17), [18, 19]),  # several wrong ones, then certain again
        (tuple(DRAFT), []),
        ((*DRAFT, 99, 99), []),
        ((97, 98, 99, 10, 11, 12, 13), [14, 15, 16]),
    ],
)
def test_what_comes_next(answer: tuple[int, ...], proposed: list[int]) -> None:
    assert after(*answer) == proposed


def test_few_are_likely_where_the_answer_left_the_draft() -> None:
    follower = DraftFollower(DRAFT)
    lengths = []
    for token in (10, 99, 12, 13, 14, 15):
        follower.accept([token])
        lengths.append(len(follower.propose_likely(8)))
    assert lengths == [8, 1, 3, 5, 5, 4]  # two more for each token that agrees, then all that is left


def test_no_draft_proposes_nothing() -> None:
    follower = DraftFollower(())
    follower.accept([1, 2, 3])
    assert follower.propose(8) == []


def furthest_closest(answer: list[int], draft: list[int]) -> int:
    """By the whole table of edit distances."""
    row = list(range(len(draft) + 1))
    for token in answer:
        last, row = row, [row[0] + 1]
        for at, drafted in enumerate(draft):
            row.append(min(last[at + 1] + 1, row[at] + 1, last[at] + (drafted != token)))
    return max(at for at, cost in enumerate(row) if cost == min(row))


def test_the_place_is_that_of_the_whole_edit_distance() -> None:
    """Following step by step, with its shortcut where tokens agree, finds the same place nearly always."""
    generator = random.Random(4)
    same = total = 0
    for _ in range(60):
        draft = [generator.randrange(200) for _ in range(40)]
        answer = [token for token in draft if generator.random() > 0.05]
        answer = [generator.randrange(200) if generator.random() < 0.1 else token for token in answer]
        follower = DraftFollower(draft)
        for end in range(1, len(answer) + 1):
            follower.accept(answer[end - 1 : end])
            same += follower.propose(3) == draft[furthest_closest(answer[:end], draft) :][:3]
            total += 1
    assert same > 0.98 * total


def test_a_prompt_that_begins_the_answer_shortens_the_draft() -> None:
    assert remaining(DRAFT, (7, 10, 11, 12, 13)) == (14, 15, 16, 17, 18, 19)
    assert remaining(DRAFT, (1, 2, 3)) == tuple(DRAFT)
    assert remaining(DRAFT, ()) == tuple(DRAFT)
