r"""Units before and behind a number: \$48, 48 USD, 48cm, 15\mbox{ cm}^2, 30 miles per hour, 35\%.

A unit is dimensions with a factor to their base unit, so that 1 m is 100 cm and 5 cm^2 is not 5 cm. A word that the
table does not know is a dimension of its own: 5 apples are not 5 pears. Words that change a number (million, dozen,
percent, squared) and words that say something (or, not) are no units.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Unit:
    """factor: what one of it is in base units; dimensions: (name, power), sorted; none for `units` and the like."""

    factor: Fraction = Fraction(1)
    dimensions: tuple[tuple[str, int], ...] = ()


PERCENT = Unit(Fraction(1, 100), (("percent", 1),))

DEGREE = Unit(Fraction(1), (("degree", 1),))

_KNOWN: dict[str, tuple[str, Fraction, int]] = {}  # word: (dimension, factor, power)


def _add(dimension: str, words: dict[str, str], power: int = 1) -> None:
    for factor, names in words.items():
        for name in names.split():
            _KNOWN[name] = (dimension, Fraction(factor), power)


_add("length", {"1": "m meter metre", "1/100": "cm centimeter centimetre", "1/1000": "mm millimeter millimetre"})
_add("length", {"1000": "km kilometer kilometre", "0.0254": "in inch inche", "0.3048": "ft foot feet"})
_add("length", {"0.9144": "yd yard", "1609.344": "mi mile", "1e-9": "nm", "1e-6": "µm um"})
_add("length", {"1e-10": "Å angstrom"})
_add("length", {"1/1000": "L l liter litre", "1e-6": "mL ml milliliter cc"}, 3)
_add("mass", {"1": "kg kilogram", "1/1000": "g gram gm", "1e-6": "mg milligram", "0.45359237": "lb lbs"})
_add("time", {"1": "s sec second", "60": "min minute", "3600": "h hr hour", "86400": "day", "604800": "week"})
_add("time", {"1/1000": "ms millisecond"})
_add("dollar", {"1": "$ dollar usd buck", "1/100": "cent ¢"})
_add("euro", {"1": "€ euro eur"})
_add("sterling", {"1": "£ gbp"})
_add("yen", {"1": "¥ yen jpy cny yuan rmb"})
_add("rupee", {"1": "₹ rupee rs inr"})
_add("degree", {"1": "° degree deg"})
_add("radian", {"1": "rad radian"})
for _name in ("N", "J", "W", "V", "A", "K", "Pa", "Hz", "eV", "mol", "cal", "B"):
    _add(_name, {"1": _name, "1000": f"k{_name}", "1e6": f"M{_name}", "1/1000": f"m{_name}"})
_add("V", {"1": "volt Volt"})
_NEUTRAL = {"unit", "way", "integer", "digit", "point", "solution", "value", "number", "total", "answer"}
_COMPOUND = {"mph": "mile/hour", "kph": "km/h", "kmh": "km/h", "kmph": "km/h"}

# Words that say something about the number in place of naming a unit.
_SPEAKING = frozenset(
    [
        "or",
        "and",
        "not",
        "to",
        "between",
        "mod",
        "modulo",
        "hundred",
        "thousand",
        "million",
        "billion",
        "trillion",
        "dozen",
        "score",
        "percent",
        "percentage",
        "times",
        "time",
        "pi",
        "factorial",
        "squared",
        "cubed",
        "half",
        "halves",
        "third",
        "thirds",
        "quarter",
        "quarters",
        "tenth",
        "tenths",
        "hundredth",
        "hundredths",
        "thousandth",
        "thousandths",
        "if",
        "when",
        "where",
        "for",
        "all",
        "any",
        "plus",
        "minus",
        "but",
        "is",
        "are",
        "was",
        "were",
        "approx",
        "approximately",
        "about",
        "maybe",
        "around",
        "nearly",
        "almost",
        "less",
        "more",
        "than",
        "greater",
        "least",
        "most",
        "except",
        "only",
        "possibly",
        "either",
        "neither",
        "base",
        "over",
        "both",
        "same",
        "divided",
        "by",
        "multiplied",
        "infinity",
        "infinite",
        "undefined",
        "none",
        "no",
        "yes",
        "true",
        "false",
        "pair",
        "pairs",
        "couple",
        "below",
        "above",
        "even",
        "odd",
        "from",
        "until",
        "answer",
        "mixed",
        "negative",
        "positive",
        "real",
        "complex",
        "imaginary",
        "inclusive",
        "exclusive",
    ]
)

_WRAPPED = re.compile(
    r"\\(?:text|textrm|textit|textbf|textsf|mathrm|mbox|hbox|operatorname|rm)\s*\{([^{}]*)\}|\{\s*\\rm\s+([^{}]*)\}"
)
_BEFORE = re.compile(
    r"(?P<sign>[+-]?)\s*\{?\x01?(?P<unit>\\?\$|US\s*\\?\$|[£€¥₹]|\\(?:pounds|euro|yen)(?![A-Za-z])|(?:USD|EUR|GBP|JPY|CNY|RMB|INR|Rs)\b\.?)"
    r"\}?\s*(?=[-+0-9.\\(])"
)
_CURRENCY_COMMANDS = {r"\pounds": "£", r"\euro": "€", r"\yen": "¥", r"\$": "$", "us$": "$", r"us\$": "$"}
_WORD = r"(?:\x01?[A-Za-zµÅ°$€£¥₹¢]+(?:\.(?=[A-Za-z]\.?)[A-Za-z])*\.?)(?:\s*\^\s*\{?\s*-?[0-9]\s*\}?)?"
_BEHIND = re.compile(rf"(?P<gap>\s*)(?P<unit>{_WORD}(?:(?:\s*(?:/|\*|\\cdot|-)\s*|\s+){_WORD}){{0,6}})\s*\.?\s*\Z")
_START = re.compile(r"(?<=[0-9)}\]!.\s])(?=[\s\x01A-Za-zµÅ°$€£¥₹¢])(?<![\\A-Za-z])|(?<=[A-Za-z])(?=\s+[\x01A-Za-zµÅ°])")
_DEGREE = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degrees?(?![A-Za-z])|\\textdegree(?![A-Za-z])|\{\s*\}\s*\^\s*\\circ")
_PERCENT = re.compile(r"\s*(?:\\?%|\x01?\s*(?:percent|per cent|pct)(?![A-Za-z])\.?)\s*\Z", re.IGNORECASE)
LETTERS = frozenset("mgshLNJWV")  # plain single letters that are read as units, behind a space


def split_unit(text: str) -> tuple[str, Unit | None]:
    """The text without its unit, and the unit; (text, None) where there is none. Percent signs come off as PERCENT."""
    flat = _flat(text)
    before = _BEFORE.match(flat)
    unit = None
    if before:
        word = before["unit"].lower().replace(" ", "").rstrip(".")
        unit = unit_of(_CURRENCY_COMMANDS.get(word, word))
        flat = before["sign"] + flat[before.end() :]
    if percent := _PERCENT.search(flat):
        return (flat[: percent.start()].strip(), PERCENT) if unit is None else (text, None)
    for start in _START.finditer(flat):
        behind = _BEHIND.match(flat, start.start())
        found = _unit_behind(flat[: start.start()], behind) if behind else None
        if found is not None:
            same = unit is None or found.dimensions in ((), unit.dimensions)
            return (flat[: start.start()].strip(), unit or found) if same else (text, None)
    if unit is None:
        return text, None
    return flat.strip(), unit


def _flat(text: str) -> str:
    text = re.sub(r"(?<=[0-9]),\\!\s*(?=[0-9]{3})", ",", text)
    text = re.sub(r"\\(?:mathrm|text|operatorname)\s*\{\s*([eid])\s*\}", r"\1 ", text)
    text = _DEGREE.sub(" \x01° ", text.replace("~", " "))
    text = re.sub(r"\\mu(?:\s*\\mathrm\s*\{\s*~?m\s*\}|\s*m(?![a-z]))", " \x01µm ", text)
    text = _WRAPPED.sub(lambda match: f" \x01{' '.join((match[1] or match[2] or '').split())} ", text)
    return re.sub(r"\\[,;:! ]|\\q?quad(?![A-Za-z])|\{\s*\}", " ", text).replace("\x01 ", " ").strip()


def _unit_behind(core: str, behind: re.Match[str]) -> Unit | None:
    words = behind["unit"]
    wrapped = "\x01" in words
    if not wrapped:
        letters = re.findall("[A-Za-zµÅ°$€£¥₹¢]+", words)
        plain = core.strip()[-1:].isdigit() or core.strip()[-1:] in (")", "}", "!", ".")
        if not plain or (
            len(letters[0]) == 1 and letters[0].isalpha() and not (behind["gap"] and letters[0] in LETTERS)
        ):
            return None
        strange = [one for one in letters if _key(one) not in _KNOWN and one.lower() not in _COMPOUND]
        if strange and (not behind["gap"] or any(not _is_word(one) for one in strange)):
            return None
    return unit_of(words.replace("\x01", ""))


def _is_word(text: str) -> bool:
    return text.lower() in ("per", "sq", "square", "cubic", "cu", "of", "am", "pm") or (
        len(text) >= 4 and re.search("[aeiouy]", text.lower()) is not None
    )


def _key(word: str) -> str:
    """As the table has it: kept, in lower case, or without the s of a plural."""
    word = word.rstrip(".") if word.count(".") == 1 else word.replace(".", "")
    for form in (word, word.lower(), word.lower().removesuffix("s")):
        if form in _KNOWN or form in _NEUTRAL:
            return form
    return word.lower().removesuffix("s")


def unit_of(text: str) -> Unit | None:
    """The unit that words write, or None where one of them is no unit."""
    text = re.sub(r"[A-Za-z]+", lambda match: _COMPOUND.get(match[0].lower(), match[0]), text)
    factor, powers = Fraction(1), dict[str, int]()
    inverse, next_power, last_word = False, 1, ""
    for token in re.findall(r"/|[A-Za-zµÅ°$€£¥₹¢](?:[A-Za-z.]*)(?:\s*\^\s*\{?\s*-?[0-9]\s*\}?)?", text):
        word, _, exponent = token.partition("^")
        word = word.strip()
        lower = word.lower().rstrip(".")
        if token == "/" or lower == "per":
            inverse = True
        elif lower in ("square", "sq", "cubic", "cu"):
            next_power = 2 if lower[0] == "s" else 3
        elif lower in ("squared", "cubed") and powers:
            last = next(reversed(powers))
            extra = 1 if lower == "squared" else 2
            factor *= (_KNOWN.get(last_word, ("", Fraction(1), 1))[1]) ** extra
            powers[last] += extra
        elif lower in _SPEAKING:
            return None
        elif lower != "of":
            power = int(re.sub("[^0-9-]", "", exponent) or next_power) * (-1 if inverse else 1)
            last_word = _key(word)
            if last_word not in _NEUTRAL:
                dimension, one, own = _KNOWN.get(last_word, (last_word, Fraction(1), 1))
                factor *= one**power
                powers[dimension] = powers.get(dimension, 0) + own * power
            next_power = 1
    return Unit(factor, tuple(sorted((name, power) for name, power in powers.items() if power)))
