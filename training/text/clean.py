"""Turns raw text into spoken-form sentences ([A-Za-z' ,.?!] only), or refuses it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .spoken_numbers import speak_numbers

_QUOTES = str.maketrans(
    {
        "\u2019": "'",
        "\u2018": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2026": ".",
        "\u2013": "-",
        "\u2014": "-",
        "\u00a0": " ",
        "`": "'",
    }
)
_MENDED = {
    "dont": "don't",
    "im": "I'm",
    "ive": "I've",
    "didnt": "didn't",
    "thats": "that's",
    "doesnt": "doesn't",
    "cant": "can't",
    "isnt": "isn't",
    "wasnt": "wasn't",
    "youre": "you're",
    "theyre": "they're",
    "wouldnt": "wouldn't",
    "couldnt": "couldn't",
    "shouldnt": "shouldn't",
    "havent": "haven't",
    "hasnt": "hasn't",
    "arent": "aren't",
    "werent": "weren't",
    "whats": "what's",
    "theres": "there's",
    "youve": "you've",
    "hes": "he's",
    "shes": "she's",
    "alot": "a lot",
    "i'm": "I'm",
    "i've": "I've",
    "i'd": "I'd",
    "i'll": "I'll",
    "i": "I",
    "ok": "okay",
    "mr": "Mister",
    "mrs": "Missus",
    "dr": "Doctor",
    "english": "English",
    "american": "American",
    "spanish": "Spanish",
    "french": "French",
    "german": "German",
    "italian": "Italian",
    "chinese": "Chinese",
    "japanese": "Japanese",
    "mexican": "Mexican",
    "christmas": "Christmas",
    "thanksgiving": "Thanksgiving",
    "halloween": "Halloween",
    "america": "America",
    "canada": "Canada",
    "mexico": "Mexico",
    "china": "China",
    "japan": "Japan",
    "france": "France",
    "germany": "Germany",
    "italy": "Italy",
    "spain": "Spain",
    "england": "England",
    "london": "London",
    "europe": "Europe",
    "africa": "Africa",
    "asia": "Asia",
    "india": "India",
    "russia": "Russia",
    "paris": "Paris",
    "california": "California",
    "texas": "Texas",
    "utah": "Utah",
    "florida": "Florida",
    "disney": "Disney",
    "netflix": "Netflix",
    "google": "Google",
    "facebook": "Facebook",
    "monday": "Monday",
    "tuesday": "Tuesday",
    "wednesday": "Wednesday",
    "thursday": "Thursday",
    "friday": "Friday",
    "saturday": "Saturday",
    "sunday": "Sunday",
    "january": "January",
    "february": "February",
    "april": "April",
    "june": "June",
    "july": "July",
    "september": "September",
    "october": "October",
    "november": "November",
    "december": "December",
}
_ACRONYMS = {
    "TV",
    "USA",
    "CEO",
    "DVD",
    "CD",
    "PC",
    "UK",
    "GPS",
    "ID",
    "IT",
    "HR",
    "FBI",
    "CIA",
    "BBC",
    "UFO",
    "AM",
    "PM",
}
_ASKING = re.compile(
    r"^(what|when|where|who|whom|whose|why|how|which|do|does|did|is|are|was|were|can|could|would|will|"
    r"should|have you|has)\b",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"\b(f+u+c+k\w*|sh[i1]t\w*|bitch\w*|cunt\w*|dick\w*|pussy|cock\w*|nigg\w*|fag\w*|whor\w*|slut\w*|rap(e|ed|ist)|"
    r"porn\w*|penis\w*|vagina\w*|masturbat\w*|asshole\w*|bastard\w*|dildo|sex\w*|lol|lmao|omg|idk|haha\w*|hehe\w*|"
    r"ur|u|r|ya|gonna|wanna|hmm+|uh+|um+|nah|yea|yeah+h|tho|cuz|btw|xd|blah|negro\w*|jew\w*|nazi\w*|suicid\w*|"
    r"kill yourself|pls|plz|thx|hahah\w*|lmfao|wtf|brb|ikr|ppl|bc|rn|dm|snapchat|instagram)\b",
    re.IGNORECASE,
)
_UNFINISHED = re.compile(r"\b(a|an|the|of|and|or|my|your|because|every|than)[.?!]?$", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.?!])[\"')]*\s+")
_SHORT_FORMS = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|vs|etc|No|Jr|Sr)\.", re.IGNORECASE)
_SPOKEN_FORMS = {
    "mr": "Mister",
    "mrs": "Missus",
    "ms": "Miss",
    "dr": "Doctor",
    "st": "Saint",
    "vs": "versus",
    "etc": "et cetera",
    "no": "number",
    "jr": "junior",
    "sr": "senior",
}


def split_sentences(text: str) -> Iterator[str]:
    """Raw sentences of a paragraph, with the short forms that end in a full stop said in full."""
    text = _SHORT_FORMS.sub(lambda m: _SPOKEN_FORMS[m[1].lower()], " ".join(text.translate(_QUOTES).split()))
    text = re.sub(r"\.{2,}", ",", text)
    yield from _SENTENCE_END.split(text)


def _mend(word: str) -> str:
    if word.isupper() and len(word) > 1 and word not in _ACRONYMS and not word.startswith("I'"):
        return ""
    return _MENDED.get(word, word)


def key(sentence: str) -> str:
    """What two sentences share when they are the same to a listener: lower-case words."""
    return " ".join(re.findall(r"[a-z']+", sentence.lower()))


def clean(raw: str, vocabulary: frozenset[str], *, low: int = 2, high: int = 25) -> str | None:
    """One sentence in spoken form, with its first letter capital and an end mark; None where that fails.

    `vocabulary`: lower-case words that have a known pronunciation; a sentence with any other is refused.
    """
    text = speak_numbers(raw.translate(_QUOTES))
    text = re.sub(r"\s*(?:--+|;|:|\s-\s)\s*", ", ", text.replace('"', "").replace("&", " and "))
    text = re.sub(r"(?<=\w)-(?=\w)", " ", text)
    text = re.sub(r"(?<![A-Za-z])'|'(?![A-Za-z])", "", re.sub(r"[()\[\]]", "", text)).strip(" ,-")
    if not re.fullmatch(r"[A-Za-z' ,.?!]+", text) or _REFUSED.search(text) or _UNFINISHED.search(text):
        return None
    parts = re.split(r"([A-Za-z']+)", text)
    for i in range(1, len(parts), 2):
        parts[i] = _mend(parts[i])
        bare = parts[i].lower().strip("'")
        if not bare or any(
            w not in vocabulary and w.removesuffix("'s") not in vocabulary for w in bare.split()
        ):
            return None
    text = re.sub(r"\s+", " ", "".join(parts))
    text = re.sub(r"\s*([,.?!])[\s,.?!]*(?=[,.?!])", "", text)
    text = re.sub(r"\s+([,.?!])", r"\1", re.sub(r"([,.?!])(?=[A-Za-z])", r"\1 ", text)).strip(" ,")
    if not text or not low <= len(text.split()) <= high or re.search(r"(\b\w+\b)( \1){2}", text):
        return None
    if text[-1] not in ".?!":
        text += "?" if _ASKING.match(text) else "."
    return text[0].upper() + text[1:]
