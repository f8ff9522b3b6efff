"""What a client does between its connect and its end, drawn at random."""

import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .conversation import Conversation, Ended
from .questions import Question, Repertoire
from .volume import Digester, Reference

# Bytes of calls that are under way: they and their replies, twice as long, must fit into sockets,
# or both ends wait for each other to read.
_WINDOW: Final = 32768
_MOST_CALLS: Final = 32
_SLOW_CALLS: Final = 256  # small ones with large replies
_SLOW_PIECES: Final = 40
_MOST_BLOCKS: Final = 64
_LEFT_AT: Final = 0.08  # of the visits end before they are sessions
_MEAN_ACTS: Final = 8


@dataclass(frozen=True, slots=True)
class Place:
    """What a target has for its visitors."""

    repertoire: Repertoire
    reference: Reference | None  # None: no volume
    stop: threading.Event
    gentle: bool = False  # nobody dies here with calls or streams under way


class Visit:
    """One, from after the connect to the end. Raises Ended or TargetFailure."""

    def __init__(self, place: Place, conversation: Conversation, rng: random.Random) -> None:
        self._place, self._with, self._rng = place, conversation, rng

    def run(self) -> None:
        rng, talk = self._rng, self._with
        if rng.random() < _LEFT_AT:
            talk.stillborn(os.urandom(rng.randrange(28)))
            return
        talk.open(self._place.repertoire)
        acts = self._acts()
        while not self._place.stop.is_set() and rng.random() > 1 / _MEAN_ACTS:
            self._drawn(acts)()
        self._drawn(self._ends())()

    def _ends(self) -> list[tuple[int, Callable[[], None]]]:
        ends = [(6, self._with.say_goodbye), (3, self._with.close)]
        if self._place.gentle:
            return ends
        ends += [
            (2, self._leave_with_calls),
            (3, self._vanish_with_calls),
            (2, self._vanish_in_a_frame),
        ]
        if self._place.reference:
            ends.append((3, self._die_amid_transfers))
        return ends

    def _acts(self) -> list[tuple[int, Callable[[], None]]]:
        acts = [(6, self._one), (8, self._many), (2, self._pause)]
        if self._place.repertoire.large is not None:
            acts.append((1, self._many_slowly))
        if self._place.reference:
            acts += [(3, self._download), (1, self._download_slowly)]
            if not self._place.gentle:
                acts.append((1, self._download_a_part))
        return acts

    def _drawn(self, acts: list[tuple[int, Callable[[], None]]]) -> Callable[[], None]:
        return self._rng.choices([act for _, act in acts], [weight for weight, _ in acts])[0]

    # ---- acts

    def _one(self) -> None:
        self._with.put([self._place.repertoire.draw(self._rng)])
        self._with.hear_all()

    def _many(self) -> None:
        """Many at once, some of whose replies are heard before others are asked for."""
        self._with.put(self._batch())
        for _ in range(self._rng.randrange(3)):
            if not self._with.hear():
                self._with.put(self._batch())
        self._with.hear_all()

    def _many_slowly(self) -> None:
        """More than fits into the sockets between us, and no hurry to read it."""
        large = self._place.repertoire.large
        assert large is not None, "only drawn where there is one"
        many = self._rng.randint(_MOST_CALLS, _SLOW_CALLS)
        self._with.put([Question(large, 0)] * many, timed=False)
        for _ in range(_SLOW_PIECES):
            self._wait(0.02)
            if not self._with.hear(at_a_time=self._rng.randint(1, 4096)):
                return
        self._with.hear_all()

    def _pause(self) -> None:
        self._wait(0.3)

    def _download(self) -> None:
        self._transfer(lambda: None)

    def _download_slowly(self) -> None:
        self._transfer(lambda: self._wait(0.01))

    def _transfer(self, pause: Callable[[], None]) -> None:
        reference, first, count = self._range()
        found = Digester()
        for _ in self._with.download(reference.volume, first, count, found):
            pause()
        self._with.check_download(reference, first, count, found)

    def _download_a_part(self) -> None:
        """The beginning of one, and that was it: the session ends in the middle of it."""
        reference, first, count = self._range()
        next(self._with.download(reference.volume, first, count, Digester()), None)
        self._with.vanish()
        raise Ended

    # ---- ends

    def _leave_with_calls(self) -> None:
        self._with.put(self._batch())
        self._with.half_close()

    def _vanish_with_calls(self) -> None:
        self._with.put(self._batch())
        if self._rng.random() < 0.5:
            self._with.hear(at_a_time=self._rng.randint(1, 200))
        self._with.vanish()

    def _die_amid_transfers(self) -> None:
        """Killed with streams that flow and calls under way."""
        for _ in range(self._rng.randint(1, 3)):
            reference, first, count = self._range()
            self._with.begin_download(reference.volume, first, count)
        if self._rng.random() < 0.5:
            self._with.put(self._batch())
        self._wait(0.05)
        self._with.vanish()

    def _vanish_in_a_frame(self) -> None:
        """Behind the length of a call that goes on for longer than we are there."""
        length = self._rng.randint(28, _WINDOW)
        self._with.vanish(length.to_bytes(4, "big") + bytes(self._rng.randrange(length - 4)))

    # ---- below

    def _batch(self) -> list[Question]:
        batch, room = [], _WINDOW
        for _ in range(self._rng.randint(2, _MOST_CALLS)):
            question = self._place.repertoire.draw(self._rng)
            room -= question.length
            if room < 0:
                break
            batch.append(question)
        return batch or [Question(self._place.repertoire.lookups[0], 64)]

    def _range(self) -> tuple[Reference, int, int]:
        reference = self._place.reference
        assert reference is not None, "only drawn where there is one"
        count = self._rng.randint(1, min(_MOST_BLOCKS, len(reference.blocks)))
        return reference, self._rng.randint(0, len(reference.blocks) - count), count

    def _wait(self, longest_s: float) -> None:
        """A client's own slowness: not for something, but instead of reading."""
        self._place.stop.wait(self._rng.uniform(0, longest_s))
