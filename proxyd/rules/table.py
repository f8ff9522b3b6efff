"""The rules in force, and which of them decides."""

from collections.abc import Sequence
from typing import Final

from proxyd.rules.explanation import Explanation, Passed, passed_over, why_not
from proxyd.rules.index import Index
from proxyd.rules.pattern import Client, Kind
from proxyd.rules.rule import Rule
from proxyd.rules.subject import Subject, Way

_AT_ONCE: Final = 200  # rules that are looked at for one name of a client's


class RuleTable:
    """Rules in their order. The first one that fits decides; where none does, nobody is let in.

    A table is never changed: any thread may ask it. One that `is_slow` takes milliseconds.
    """

    __slots__ = ("_index", "is_slow", "needs_groups", "needs_ssh", "rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._index = Index(self.rules)
        # A certificate with many names makes each of these rules dear.
        self.is_slow = self._index.largest > _AT_ONCE
        # Whether any rule asks for the groups of a client of this host, and whether it came by ssh.
        self.needs_groups = any(
            pattern.kind is Kind.GROUP
            for rule in self.rules
            for together in rule.who
            for pattern in together
        )
        self.needs_ssh = any(rule.ways and Way.SSH in rule.ways for rule in self.rules)

    def decide(self, subject: Subject, uri: str, now_s: float) -> Rule | None:
        """The rule that holds for a client and a name, None to refuse it.

        `uri` is what `reading.name_matched` makes of the client's name, `now_s` CLOCK_REALTIME.
        """
        number = self._decide(Client(subject), uri, now_s)
        return None if number is None else self.rules[number]

    def _decide(self, client: Client, uri: str, now_s: float) -> int | None:
        rules = self.rules
        first = len(rules)
        for numbers in self._index.places(client, uri):
            for number in numbers:
                if number >= first:
                    break
                if why_not(rules[number], client, uri, now_s) is None:
                    first = number
                    break
        return first if first < len(rules) else None

    def explain(self, subject: Subject, uri: str, now_s: float) -> Explanation:
        """The same with why none of the rules before it did; looks at each of them."""
        client = Client(subject)
        number = self._decide(client, uri, now_s)
        before = self.rules if number is None else self.rules[:number]
        passed: tuple[Passed, ...] = passed_over(before, client, uri, now_s)
        rule = None if number is None else self.rules[number]
        return Explanation(rule=rule, before=passed)
