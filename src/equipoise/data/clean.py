"""FastChat's cleaning of ShareGPT conversations (Zheng et al. 2023), which CoTBal applies (Section 4.1).

The rules are those of FastChat's `fastchat/data/clean_sharegpt.py` and `filter_wrong_format.py`, in their order:

1. A first turn that is not the human's is dropped, and a last one that is. Fewer than two turns left: too short.
2. The human and the model take turns, or the conversation is invalid.
3. A turn that names OpenAI or ChatGPT, or an answer that begins with ShareGPT's notice of too many requests, makes it
   invalid.
4. HTML becomes Markdown, and what ShareGPT's page put around it goes: "2 / 2" in front of an answer that was generated
   again, "Copy code" in code blocks, "Copy12 chars / 3 words".
5. It ends before the first turn that is empty or begins with a character that cannot be printed, and with an answer.
6. Fewer than 16 characters left: too short.
7. A list that counts 1., 1. makes it invalid.

Left out: the removal of one language, Korean in Vicuna's recipe, for which FastChat needs a detector (polyglot); and
FastChat's splitting of long conversations, which CoTBal cuts instead. FastChat drops duplicates as well: see
`equipoise.data.readers.sharegpt`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from equipoise.data.sample import Turn, exchange
from equipoise.errors import DataError

SPEAKERS = ("human", "gpt")
BLOCKED = ("openai", "chatgpt")
BLOCKED_ANSWERS = re.compile(r"!?Too many requests in 1 hour\. Try again later\.")
SHORTEST = 16  # characters
MOST_WORK = 10**9  # steps that the expressions below may take, each of which may look through the rest of the text
WRONG_LIST = re.compile(r"\n1\. [^2]*\n1\. ")


class Invalid(ValueError):
    """A conversation that FastChat's rules leave out; the text says by which."""


def clean(messages: Sequence[tuple[str, str]], to_markdown: Callable[[str], str] = str.strip) -> tuple[Turn, ...]:
    """Clean one conversation.

    Args:
        messages: who speaks, "human" or "gpt", and what.
        to_markdown: `html_to_markdown` for messages in HTML.

    Returns:
        Turns of user and assistant, one after the other, ending with an answer.

    Raises:
        Invalid: it must be left out.
    """
    kept = list(messages)
    if kept and kept[0][0] != SPEAKERS[0]:
        kept = kept[1:]
    if kept and kept[-1][0] == SPEAKERS[0]:
        kept = kept[:-1]
    if len(kept) < 2:
        raise Invalid("too short")
    texts: list[str] = []
    for number, (speaker, message) in enumerate(kept):
        if speaker != SPEAKERS[number % 2]:
            raise Invalid("roles do not alternate")
        if any(word in message.lower() for word in BLOCKED):
            raise Invalid("blocked words")
        text = to_markdown(message)
        if speaker == SPEAKERS[1] and BLOCKED_ANSWERS.match(text):
            raise Invalid("blocked words")
        if not text or not text[0].isprintable():
            break
        texts.append(text)
    if sum(map(len, texts)) < SHORTEST or len(texts) < 2:
        raise Invalid("too short")
    pairs = list(zip(texts[::2], texts[1::2]))
    if any(WRONG_LIST.search(text) for pair in pairs for text in pair):
        raise Invalid("a list that counts 1., 1.")
    return tuple(turn for pair in pairs for turn in exchange(*pair))


def html_to_markdown(html: str) -> str:
    """A ShareGPT page's HTML of one message as Markdown.

    Raises:
        DataError: the `markdownify` package is missing. Invalid: HTML that no parser takes.
    """
    try:
        from bs4.exceptions import ParserRejectedMarkup
        from markdownify import markdownify
    except ImportError as error:
        raise DataError("messages in HTML need the markdownify package: pip install markdownify") from error
    if (html.count("<div") + html.count("<span") + html.count("```") + 1) * len(html) > MOST_WORK:
        raise Invalid("HTML that takes too long")
    html = re.sub(r"<(div|span).*?>", "", html)  # both would break code blocks
    try:
        text = markdownify(html).strip()
    except (ParserRejectedMarkup, AssertionError, RecursionError) as error:
        raise Invalid("HTML that cannot be parsed") from error
    if text.count("```") * len(text) > MOST_WORK:
        raise Invalid("HTML that takes too long")
    # A block reads "LANGUAGECopy codeCODE"; the language belongs on the fence's line.
    text = re.sub(r"```\s*(.*?)(?:Copy code)+(.+?)\s*?```", r"```\1\n\2\n```", text, flags=re.DOTALL)
    text = re.sub(r"^\d+ / \d+", "", text)
    text = re.sub(r"Copy\d+ chars / \d+ words", "", text)
    text = re.sub(r"```(.*?)Copy code\s*```", "", text)
    return text.replace("\n\n\n", "\n").strip()
