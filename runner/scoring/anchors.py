r"""Find where an answer says what its result is: ``\boxed{18}``, ``<answer>B</answer>``, ``#### 18``, ``Answer: B``."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Wording(NamedTuple):
    """How one language announces a result.

    Attributes:
        language: ISO 639-1.
        noun: words for "answer", as an expression; a colon or an equals sign follows them.
        verb: what stands before the result in a sentence ("the answer is", "I choose"), as an expression.
        after: what follows a result that is called right ("is correct"), as an expression.
    """

    language: str
    noun: str
    verb: str
    after: str


_EN_IS = (
    r"(?:is|would\s+be|must\s+be|should\s+be|has\s+to\s+be|will\s+be|becomes)(?!\s+(?:not|never)\b|n['’]t)"
    r"(?:\s+(?:most\s+|very\s+)?(?:likely|probably|clearly|therefore|thus|definitely))?"
)
WORDINGS = (
    Wording(
        "en",
        r"(?:answer|choice|option|solution|label|classification|sentiment|category|verdict|conclusion)",
        rf"(?:answer|choice|option|solution|label|sentiment|category|result|one)(?:\s+(?:to|for|of|here|among|from|in|based|given|that|which)\b[^.\n]{{0,80}}?)?\s+{_EN_IS}"
        r"|(?:I|we)(?:['’]d|\s+would|\s+will|['’]ll|\s+have\s+to)?\s+(?:choose|chose|pick|select|go\s+with|say|answer)"
        r"|(?:select|choose|pick)s?|(?:classif(?:y|ied)|categori[sz]ed?|labell?ed)\b[^.\n]{0,60}?\bas",
        r"is\s+(?:therefore\s+|thus\s+|clearly\s+|definitely\s+)?(?:the\s+)?(?:most\s+|only\s+)?(?:likely\s+)?"
        r"(?:correct|right|answer|best\s+(?:answer|choice|option|fit)|true\s+one)",
    ),
    Wording("de", r"(?:antwort|lösung|ergebnis|wahl)", r"(?:antwort|lösung|option)\s+(?:ist|lautet|wäre)(?!\s+nicht)", r"ist\s+(?:die\s+)?(?:richtig|korrekt)"),  # noqa: E501
    Wording("fr", r"(?:réponse|solution|choix)", r"(?:réponse|solution|option)(?:\s+(?:correcte|exacte|finale))?\s+est(?!\s+pas)", r"est\s+(?:la\s+)?(?:bonne|correcte|juste|exacte)"),  # noqa: E501
    Wording("es", r"(?:respuesta|solución|opción)", r"(?:respuesta|solución|opción)(?:\s+(?:correcta|final))?\s+es", r"es\s+(?:la\s+)?(?:respuesta\s+)?correct[ao]"),  # noqa: E501
    Wording("pt", r"(?:resposta|solução|alternativa|opção)", r"(?:resposta|solução|alternativa|opção)(?:\s+(?:correta|certa|final))?\s+é", r"é\s+(?:a\s+)?(?:resposta\s+)?(?:corret[ao]|cert[ao])"),  # noqa: E501
    Wording("it", r"(?:risposta|soluzione|opzione)", r"(?:risposta|soluzione|opzione)(?:\s+(?:corretta|giusta|finale))?\s+è", r"è\s+(?:la\s+)?(?:risposta\s+)?(?:corretta|giusta)"),  # noqa: E501
    Wording("nl", r"(?:antwoord|oplossing)", r"(?:antwoord|optie)\s+is(?!\s+niet)", r"is\s+(?:het\s+)?(?:juist|correct|goed)e?"),
    Wording("pl", r"(?:odpowiedź|odpowiedzią)", r"(?:odpowiedź|odpowiedzią)(?:\s+jest|\s+to)", r"jest\s+(?:poprawn|prawidłow)[aąey]"),  # noqa: E501
    Wording("sv", r"(?:svar|svaret)", r"svaret\s+är(?!\s+inte)", r"är\s+(?:rätt|korrekt)"),
    Wording("tr", r"(?:cevap|yanıt)", r"(?:doğru\s+)?(?:cevap|yanıt)", r"(?:seçeneği\s+)?doğru(?:dur)?\b"),
    Wording("ru", r"(?:ответ|решение|вариант)", r"(?:ответ|вариант)(?:ом)?(?:\s*[-—–]|\s+(?:это|будет|является))(?!\s+не\b)", r"(?:является\s+)?(?:правильн|верн)(?:ый|ым|ая|ой)"),  # noqa: E501
    Wording("uk", r"(?:відповідь)", r"відповідь(?:\s*[-—–]|\s+(?:це|буде))", r"є\s+правильн(?:ою|им)"),
    Wording("ar", r"(?:الجواب|الإجابة|الاجابة|إجابة|جواب)(?:\s+(?:الصحيحة|النهائية|الصحيح|النهائي))?", r"(?:الجواب|الإجابة|الاجابة)(?:\s+(?:الصحيحة|النهائية|الصحيح|النهائي))?\s+(?:هو|هي)", r"(?:هي|هو)\s+(?:الإجابة\s+)?الصحيح"),  # noqa: E501
    Wording("he", r"(?:תשובה|התשובה)(?:\s+(?:הנכונה|הסופית))?", r"(?:התשובה)(?:\s+(?:הנכונה|הסופית))?\s+היא", r"היא\s+הנכונה"),
    Wording("hi", r"(?:उत्तर|जवाब|सही\s+उत्तर)", r"(?:उत्तर|जवाब|विकल्प)", r"(?:सही\s+(?:है|उत्तर|विकल्प))"),
    Wording("zh", r"(?:答案|回答|答|选项|選項|结论|結論)", r"(?:答案|选项|選項)(?:应该|應該|应|應|就|选择|選擇)?(?:是|为|為|选|選)(?!不)|(?<!不)[选選](?:择|擇)?", r"(?:选项|選項|项|項)?(?:是)?(?:正确|正確|对的|對的)"),  # noqa: E501
    Wording("ja", r"(?:答え|回答|解答|正解|答)", r"(?:答え|回答|解答|正解|答)は", r"が(?:正解|正しい|適切)"),
    Wording("ko", r"(?:정답|답|답변|대답)", r"(?:정답|답)(?:은|:)", r"(?:번)?(?:이|가)?\s*(?:정답|맞습니다|옳습니다)"),
    Wording("th", r"(?:คำตอบ|ตอบ)", r"(?:คำตอบ(?:ที่ถูกต้อง)?)(?:คือ|เป็น)|ตอบ", r"(?:เป็นคำตอบที่)?ถูกต้อง"),
    Wording("vi", r"(?:đáp\s+án|câu\s+trả\s+lời|trả\s+lời|kết\s+quả)", r"(?:đáp\s+án|câu\s+trả\s+lời)(?:\s+đúng)?\s+là", r"là\s+(?:đáp\s+án\s+)?đúng"),  # noqa: E501
    Wording("id", r"(?:jawaban|jawabannya)", r"(?:jawaban(?:nya)?)(?:\s+(?:yang\s+)?(?:benar|tepat))?\s+adalah", r"adalah\s+(?:jawaban\s+)?(?:yang\s+)?benar"),  # noqa: E501
)  # fmt: skip
"""Wordings of chat models' answers to multiple-choice questions, 2026-11; for languages other than English and Chinese: the
translations of MMMLU (huggingface.co/datasets/openai/MMMLU) and simple-evals' table of "Answer:" in fourteen languages
(github.com/openai/simple-evals, common.py), which puts a colon after the noun."""

_ANSWER = (
    "answer|antwort|ergebnis|réponse|respuesta|resposta|risposta|antwoord|odpowied[źz]|svar(?:et)?|cevap|yanıt|ответ|відповідь"
    "|الجواب|الإجابة|الاجابة|إجابة|جواب|התשובה|תשובה|उत्तर|जवाब|答案|答え|回答|解答|正解|答|정답|답|คำตอบ|đáp\\s+án|trả\\s+lời|kết\\s+quả"
    "|jawaban(?:nya)?|jibu|উত্তর|సమాధానం|پاسخ"
)
_BEFORE_ANSWER = (
    "so|thus|hence|therefore|the|my|our|your|final|correct|short|exact|numerical|die|das|la|le|el|o|a|il|lo|het|mein|endgültige|richtige"
    "|bonne|final[ea]?|correct[ea]?|corrett[ao]|corret[ao]|juiste|правильный|окончательный|итоговый|最终|最終|最終的な|正确|正確|最后|最後の|최종"
    "|सही|अंतिम|câu"
)
"""Words that may stand between the beginning of a line and its word for "answer". "Step 2 answer: 5" announces no result."""

NOUN = "(?:" + "|".join(wording.noun for wording in WORDINGS) + ")"
VERB = "(?:" + "|".join(wording.verb for wording in WORDINGS) + ")"
AFTER = "(?:" + "|".join(wording.after for wording in WORDINGS) + ")"

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|([0-9A-Za-z]))")
_BRACE = re.compile(r"(?<!\\)[{}]")
_TAG = re.compile(r"<(answer|final_answer|result|output)>\s*(.*?)\s*</\1>", re.DOTALL | re.IGNORECASE)
_HEADING = re.compile(r"^[ \t]*####[ \t]*((?![^\W\d_]|[0-9]+[.)]\s)\S.*)$", re.MULTILINE)


@cache
def _line() -> re.Pattern[str]:
    """Compile the expression for a line that announces the answer. Compiling takes as long as scoring a hundred answers."""
    words = rf"(?:(?:{_BEFORE_ANSWER})\s*){{0,3}}(?:{_ANSWER})(?:\s+(?:is|final))?"
    return re.compile(rf"^[^\w\n]*{words}[^\w\n:：=]*[:：=][ \t*_]*(\S.*)$", re.MULTILINE | re.IGNORECASE)


@cache
def announcing() -> re.Pattern[str]:
    """Compile the expression for words that announce a result, which begins where they end."""
    return re.compile(rf"(?<![a-zà-ɏа-я])(?:{VERB}|{NOUN}[^\w\n:：=]{{0,6}}[:：=])", re.IGNORECASE)


@cache
def calling_right() -> re.Pattern[str]:
    """Compile the expression for words that call right what stands before them."""
    return re.compile(rf"(?:(?:option|answer)\s+)?{AFTER}", re.IGNORECASE)


def boxed(text: str) -> str | None:
    r"""Return what is in the last ``\boxed{...}`` that has something in it, its braces balanced; None without one.

    A box that is not closed, in an answer that was cut off, ends with its line.
    """
    if "boxed" not in text and "fbox" not in text:
        return None
    for found in reversed(list(_BOX.finditer(text))):
        if inside := (found[1] or _balanced(text, found.end())).strip():
            return inside
    return None


def _balanced(text: str, start: int) -> str:
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return text[start : brace.start()]
    return text[start:].partition("\n")[0]


def tagged(text: str) -> str | None:
    """Return what is in the last pair of tags such as ``<answer>...</answer>``; None without one."""
    if "</" not in text:
        return None
    found = [tag[2] for tag in _TAG.finditer(text) if tag[2]]
    return found[-1] if found else None


def lines(text: str) -> Iterator[str]:
    """Yield what stands after ``####`` or a word for "answer" with a colon on a line of its own, the last one first."""
    found = [(line.start(), line[1]) for line in _line().finditer(text)]
    if "####" in text:
        found += [(line.start(), line[1]) for line in _HEADING.finditer(text)]
    yield from (content for _, content in sorted(found, reverse=True))
