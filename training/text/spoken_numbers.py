"""Numbers as they are said: cardinals, ordinals, years, clock times, money. Training text holds no digits."""

from __future__ import annotations

import re

_TEENS = "ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
_ONES = ("zero|one|two|three|four|five|six|seven|eight|nine|" + _TEENS).split("|")
_TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_IRREGULAR = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def cardinal(n: int, *, joiner: str = " and ") -> str:
    """0..999,999,999 in words; `joiner` goes between hundreds and the rest ("two hundred and six")."""
    if n < 20:
        return _ONES[n]
    if n < 100:
        return _TENS[n // 10] + ("" if n % 10 == 0 else " " + _ONES[n % 10])
    if n < 1000:
        rest = "" if n % 100 == 0 else joiner + cardinal(n % 100)
        return f"{_ONES[n // 100]} hundred{rest}"
    scales: tuple[tuple[int, str], ...] = ((1_000_000, "million"), (1000, "thousand"))
    for size, name in scales:
        if n >= size:
            over = n % size
            link = joiner if 0 < over < 100 else " "
            tail = "" if over == 0 else link + cardinal(over, joiner=joiner)
            return f"{cardinal(n // size, joiner=joiner)} {name}{tail}"
    raise ValueError(f"not a natural number: {n}")


def ordinal(n: int) -> str:
    """First, second, twenty third, ..."""
    head, _, last = cardinal(n).rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return f"{head} {last}".strip()


def year(n: int) -> str:
    """1999 -> nineteen ninety nine; 2007 -> two thousand and seven; 2024 -> twenty twenty four."""
    if 2000 <= n < 2010 or n % 1000 == 0:
        return cardinal(n)
    if n % 100 == 0:
        return f"{cardinal(n // 100)} hundred"
    low = n % 100
    return f"{cardinal(n // 100)} {'oh ' + _ONES[low] if low < 10 else cardinal(low)}"


def clock(hour: int, minute: int) -> str:
    """8, 45 -> eight forty five; 8, 5 -> eight oh five; 8, 0 -> eight o'clock."""
    if minute == 0:
        return f"{_ONES[hour]} o'clock"
    return f"{_ONES[hour]} {'oh ' + _ONES[minute] if minute < 10 else cardinal(minute)}"


def digits(text: str, zero: str = "zero") -> str:
    """Each digit by itself, as phone numbers are read."""
    return " ".join(zero if c == "0" else _ONES[int(c)] for c in text)


def money(units: int, cents: int = 0, unit: str = "dollar") -> str:
    """12, 50 -> twelve dollars and fifty cents."""
    text = f"{cardinal(units)} {unit}{'' if units == 1 else 's'}"
    return text if cents == 0 else f"{text} and {cardinal(cents)} cent{'' if cents == 1 else 's'}"


_NUMERAL = re.compile(
    r"(?<![\d.,$:/-])\d{1,3}(?:,\d{3})+(?![\d,])"
    r"|(?<![\w.,$:/-])\d{1,6}(?:\.\d{1,2})?(?![\w:/-])"
)


def _number(match: re.Match[str]) -> str:
    token = match.group(0)
    plain = token.replace(",", "")
    if "." in plain:
        whole, _, part = plain.partition(".")
        return f"{cardinal(int(whole))} point {digits(part)}"
    n = int(plain)
    return year(n) if len(token) == 4 and 1100 <= n < 2100 else cardinal(n)


def speak_numbers(text: str) -> str:
    """Replaces the numerals of a sentence ($5, 20%, 8:45, 3rd, 1,200, 2.5, 1999) by words; odd ones stay."""
    text = re.sub(r"\$(\d{1,6})\.(\d\d)\b", lambda m: money(int(m[1]), int(m[2])), text)
    text = re.sub(
        r"\$(\d{1,3}(?:,\d{3})*|\d+)\b(?![.,]\d)", lambda m: money(int(m[1].replace(",", ""))), text
    )
    text = re.sub(r"\b(1?\d):([0-5]\d)\b", lambda m: clock(int(m[1]), int(m[2])), text)
    text = re.sub(r"\b(\d{1,3})(?:st|nd|rd|th)\b", lambda m: ordinal(int(m[1])), text)
    text = re.sub(r"(\d)\s?%", r"\1 percent", text)
    return _NUMERAL.sub(_number, text)
