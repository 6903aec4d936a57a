"""Sentences from templates.txt: slots filled from word lists or with spoken numbers, dates, prices."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

from .spoken_numbers import cardinal, clock, digits, money, ordinal, year

_HERE = Path(__file__).parent
_WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_AIRLINES = ("A A", "B A", "U A", "D L", "L H", "K L", "A F")


class Grammar:
    """Seeded generator: one instance, one stream of sentences."""

    def __init__(self, seed: int, templates: Path = _HERE / "templates.txt") -> None:
        self.random = random.Random(seed)
        lines = templates.read_text("utf-8").splitlines()
        self.templates = [line for line in lines if line and not line.startswith("#")]
        self.lists = {
            p.stem: p.read_text("utf-8").split("\n") for p in sorted((_HERE / "slots").glob("*.txt"))
        }
        self.lists = {name: [word for word in words if word] for name, words in self.lists.items()}
        self.makers: dict[str, Callable[[], str]] = {
            "weekday": lambda: self.random.choice(_WEEKDAYS),
            "month": lambda: self.random.choice(_MONTHS),
            "small": lambda: cardinal(self.random.randint(2, 60)),
            "number": self._number,
            "million": lambda: cardinal(self.random.randint(2, 30)),
            "ordinal": lambda: ordinal(self.random.randint(1, 31)),
            "year": lambda: year(self.random.randint(1780, 2039)),
            "percent": lambda: cardinal(self.random.randint(1, 99)) + " percent",
            "time": self._time,
            "date": self._date,
            "money": self._money,
            "bigmoney": self._big_money,
            "phone": lambda: self._digits(self.random.choice((7, 10, 10, 11))),
            "digits3": lambda: self._digits(3),
            "digits4": lambda: self._digits(4),
            "digits6": lambda: self._digits(6),
            "flight": lambda: f"{self.random.choice(_AIRLINES)} {self._digits(self.random.choice((3, 4)))}",
            "spell": lambda: " ".join(self.random.choice(self.lists["last"]).upper()),
        }

    def sentence(self) -> str:
        """One expanded template, first letter capital."""
        text = self.expand(self.random.choice(self.templates))
        return text[0].upper() + text[1:]

    def expand(self, template: str) -> str:
        """Fills choices, then slots; a slot's text may hold neither."""
        text = template
        while "[" in text:
            text = re.sub(r"\[([^\[\]]*)\]", lambda m: self.random.choice(m[1].split("|")), text)
        return re.sub(r"\{(\w+)\}", lambda m: self._slot(m[1]), text)

    def _slot(self, name: str) -> str:
        maker = self.makers.get(name)
        return maker() if maker else self.random.choice(self.lists[name])

    def _number(self) -> str:
        top = self.random.choice((20, 100, 100, 1000, 1000, 10_000, 1_000_000))
        n = self.random.randint(2, top)
        n = round(n, -3) if n > 20_000 else n
        return cardinal(n, joiner=self.random.choice((" and ", " ")))

    def _time(self) -> str:
        hour, r = self.random.randint(1, 12), self.random.random()
        if r < 0.15:
            return f"{self.random.choice(('half', 'quarter', 'ten', 'twenty', 'five'))} past {cardinal(hour)}"
        if r < 0.25:
            return f"{self.random.choice(('quarter', 'ten', 'twenty', 'five'))} to {cardinal(hour)}"
        if r < 0.3:
            return self.random.choice(("noon", "midnight"))
        minute = self.random.choice((0, 0, 15, 30, 45, *range(0, 60, 5), *range(60)))
        said = clock(hour, minute) if minute or self.random.random() < 0.6 else cardinal(hour)
        if "o'clock" not in said and self.random.random() < 0.3:
            said += self.random.choice((" a m", " p m"))
        elif self.random.random() < 0.25:
            said += self.random.choice((" in the morning", " in the evening", " in the afternoon"))
        return said.replace(" a m", " AM").replace(" p m", " PM")

    def _date(self) -> str:
        month, day = self.random.choice(_MONTHS), ordinal(self.random.randint(1, 31))
        return self.random.choice((f"{month} {day}", f"{month} the {day}", f"the {day} of {month}"))

    def _money(self) -> str:
        unit = self.random.choice(("dollar",) * 5 + ("pound", "euro"))
        units = self.random.choice(
            (self.random.randint(1, 20), self.random.randint(1, 999), self.random.randint(1, 9999))
        )
        cents = self.random.choice((0, 0, 50, 99, 95, self.random.randint(1, 99))) if unit == "dollar" else 0
        return money(units, cents, unit)

    def _big_money(self) -> str:
        n = self.random.randint(2, 950)
        size = self.random.choice(("thousand", "million", "million", "billion"))
        whole = (
            cardinal(n)
            if self.random.random() < 0.6
            else f"{cardinal(n % 60 + 1)} point {cardinal(n % 9 + 1)}"
        )
        return f"{whole} {size} {self.random.choice(('dollars', 'dollars', 'euros', 'pounds'))}"

    def _digits(self, count: int) -> str:
        text = "".join(self.random.choice("0123456789") for _ in range(count))
        return digits(text, self.random.choice(("zero", "oh")))
