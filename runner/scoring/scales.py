"""Words after a number that multiply it: ``1.2 million``, ``3 Mio.``, ``5 लाख``, ``2万``."""

from __future__ import annotations

from typing import NamedTuple


class Scale(NamedTuple):
    """Words for one factor.

    Attributes:
        factor: what the number is multiplied by; None: the word has more than one meaning, so that the number cannot be read.
        words: the forms of the word, in lower case, separated by spaces.
        languages: where it is used, as ISO 639-1 codes.
    """

    factor: int | None
    words: str
    languages: str


SCALES = (
    Scale(100, "hundred", "en"),
    Scale(10**3, "thousand thousands", "en"),
    Scale(10**5, "lakh lakhs", "en"),
    Scale(10**6, "million millions", "en fr"),
    Scale(10**7, "crore crores", "en"),
    Scale(10**9, "billion billions bn", "en"),
    Scale(10**12, "trillion trillions", "en"),
    Scale(12, "dozen", "en"),
    Scale(10**3, "tausend tsd", "de"),
    Scale(10**6, "millionen mio", "de"),
    Scale(10**9, "milliarde milliarden mrd", "de"),
    Scale(10**12, "billionen", "de"),
    Scale(10**3, "mille", "fr it"),
    Scale(10**9, "milliard milliards", "fr da no"),
    Scale(10**3, "mila", "it"),
    Scale(10**6, "milione milioni", "it"),
    Scale(10**9, "miliardo miliardi", "it"),
    Scale(10**6, "millón millones", "es"),
    Scale(10**12, "billón billones", "es"),
    Scale(None, "mil", "es pt ca, and a thousandth of an inch"),
    Scale(10**6, "milhão milhões", "pt"),
    Scale(10**9, "bilhão bilhões", "pt (Brazil)"),
    Scale(10**3, "duizend", "nl"),
    Scale(10**6, "miljoen", "nl"),
    Scale(10**9, "miljard", "nl sv fi"),
    Scale(10**6, "miljon miljoner", "sv"),
    Scale(10**9, "miljarder", "sv"),
    Scale(10**3, "tys tysiąc tysiące tysięcy", "pl"),
    Scale(10**6, "mln milion miliony milionów", "pl cs"),
    Scale(10**9, "mld miliard miliardy miliardów", "pl cs"),
    Scale(10**3, "тыс тысяча тысячи тысяч", "ru"),
    Scale(10**6, "млн миллион миллиона миллионов мільйон мільйони мільйонів", "ru uk"),
    Scale(10**9, "млрд миллиард миллиарда миллиардов мільярд мільярди мільярдів", "ru uk"),
    Scale(10**12, "трлн триллион триллиона триллионов", "ru"),
    Scale(None, "bin", "tr, and a container in English"),
    Scale(10**6, "milyon", "tr"),
    Scale(10**9, "milyar", "tr"),
    Scale(10**3, "nghìn ngàn", "vi"),
    Scale(10**6, "triệu", "vi"),
    Scale(10**9, "tỷ", "vi"),
    Scale(10**3, "ribu", "id ms"),
    Scale(10**6, "juta", "id ms"),
    Scale(10**9, "miliar", "id"),
    Scale(10**3, "हज़ार हजार", "hi"),
    Scale(10**5, "लाख", "hi"),
    Scale(10**7, "करोड़", "hi"),
    Scale(10**3, "ألف آلاف الف", "ar"),
    Scale(10**6, "مليون ملايين", "ar"),
    Scale(10**9, "مليار مليارات", "ar"),
    Scale(10**3, "אלף", "he"),
    Scale(10**6, "מיליון", "he"),
    Scale(10**9, "מיליארד", "he"),
    Scale(10**3, "พัน", "th"),
    Scale(10**4, "หมื่น", "th"),
    Scale(10**5, "แสน", "th"),
    Scale(10**6, "ล้าน", "th"),
)
"""Scale words, by CLDR 48's compact decimal formats (unicode.org/cldr) and their inflected forms in dictionaries.

``billion`` is read as in English. In French it is 10^12, and so rare there that CLDR has ``mille milliards``.
"""

FACTORS: dict[str, int | None] = {word: scale.factor for scale in SCALES for word in scale.words.split()}
"""Factor by word."""

EASTERN: dict[str, int] = {
    "百": 10**2, "千": 10**3, "万": 10**4, "萬": 10**4, "億": 10**8, "亿": 10**8,
    "백": 10**2, "천": 10**3, "만": 10**4, "억": 10**8, "조": 10**12,
}  # fmt: skip
"""Signs of Chinese, Japanese and Korean that follow a number."""

AMBIGUOUS_SIGN = "兆"
"""10^12 in Japan and Taiwan, 10^6 in China."""

LETTERS_AFTER: dict[str, int] = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
"""Letters that multiply an amount of money (``$5M``). Elsewhere only ``k`` does: the others are units, as in 300 K."""

UNITS_AFTER_THOUSAND = "克米瓦卡焦帕伏赫"
"""Characters after which 千 is the prefix of a unit: 千克 is the kilogram, so 5千克 is the number 5."""
