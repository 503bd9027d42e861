"""Words as COCO's caption metrics count them: Penn Treebank tokens, lower-cased, without punctuation; no Java.

pycocoevalcap runs Stanford's PTBTokenizer 3.4.1 (`-preserveLines -lowerCase`) and drops a list of punctuation tokens.
This follows its rules for what captions are made of: clitics are parted ("isn't": is n't; "dog's": dog 's), words with
hyphens, slashes and inner periods and numbers stay whole, abbreviations keep their period, brackets are -lrb- and -rrb-
(the list that pycocoevalcap drops has them in capitals, after lower-casing, so they stay). It leaves out what captions
hardly have: smileys, markup, addresses, telephone numbers. A single letter with a period at the end of a text loses the
period; Stanford's tokenizer decides that by how the next text begins.
`scripts/ptb_agreement.py` measures the agreement; docs/metrics.md quotes it.
"""

from __future__ import annotations

import re

# What spaces go around: clitics, and the second half of a few words that are written as one.
PARTED = re.compile(
    r"""
      (?<=\w) (n't | '(?:s|re|ve|ll|m|d)) (?!\w)
    | (?<=\w) ('n') (?=\w)
    | (?<=\bcan) (not) (?![\w-])
    | (?<=\b(?:gon|wan)) (na) (?![\w-])
    | (?<=\bgot) (ta) (?![\w-])
    | (?<=\b(?:lem|gim)) (me) (?![\w-])
    | (?<=\B't) (is|was) (?![\w-])
    """,
    re.VERBOSE | re.IGNORECASE,
)
# They keep their period anywhere; those of the second list before a number only.
ABBREVIATIONS = (
    "adm al apr assn assoc aug ave bldg blvd bros calif capt cf cmdr co col corp cpl dec dept dr esq est etc feb fla "
    "fri ft gen gov hon inc jan jr jul jun lt ltd maj mar messrs mfg mich mon mr mrs ms mt nov oct penn pres prof pvt "
    "rd rep reps rev sen sens sep sept sgt sq sr st ste supt tel thu thurs tue tues univ va vs wed"
)
BEFORE_NUMBERS = "fig figs no nos op pp"
TOKEN = re.compile(
    rf"""
      (?:{ABBREVIATIONS.replace(" ", "|")})\.(?!\w) | (?:{BEFORE_NUMBERS.replace(" ", "|")})\.(?=\ \d)
    | (?:[^\W\d_]\.){{2,}}(?!\w) | [^\W\d_]\.(?=\s+\S|\d)          # initials
    | [-+]?\d+(?:[.,:/-]\d+)+(?:-[^\W_]+)* | [-+]\d+ | [-+]?\.\d+  # numbers
    | (?-i:[A-Z]+(?:&[A-Z]+)+) | c\+\+
    | n't(?!\w) | 't(?=\ +(?:is|was)) | '(?:s|re|ve|ll|m|d|em|cause|n'?)(?!\w)  # parted words, and their like
    | (?<!\w)'\d\ds?(?!\w)
    | [^\W_]+(?:(?:[-/_] | (?<!\d)\.(?!\d) | (?<!\d)'(?!\d))[^\W_]+)*
    | \.{{2,}} | -+ | _+ | [!?]{{2,}} | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)
DROPPED = re.compile(r"[.?!,:;'`\"“”‘…–—] | \.\.+ | -+", re.VERBOSE)
SPELLED = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "€": "$",
    "£": "#",
    "¢": "cents",
}


def tokens(text: str) -> list[str]:
    """The words of a text."""
    parted = PARTED.sub(r" \g<0> ", text.replace("’", "'"))
    return [SPELLED.get(token, token.lower()) for token in TOKEN.findall(parted) if not DROPPED.fullmatch(token)]
