"""PTB-like words. The expectations were read off Stanford's PTBTokenizer 3.4.1 as pycocoevalcap runs it, with Java;
these tests need none. scripts/ptb_agreement.py runs both on any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.metrics.ptb import tokens


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man's dog isn't running, it's walking...", "a man 's dog is n't running it 's walking"),
        ("a dog (brown and 'wet')", "a dog -lrb- brown and wet -rrb-"),
        ("at 3:30 p.m. for $5.00 or 10% off!", "at 3:30 p.m. for $ 5.00 or 10 % off"),
        ('"Hello," he said - \'hi\' -- to Mr. Smith & Sons;', "hello he said hi to mr. smith & sons"),
        ("e.g. this/that and/or 1/2 cup.", "e.g. this/that and/or 1/2 cup"),
        ("cannot gonna gotta wanna lemme gimme d'you 'tis", "can not gon na got ta wan na lem me gim me d'you 't is"),
        ("They've we're I'm you'll he'd", "they 've we 're i 'm you 'll he 'd"),
        ("can't won't shan't didn't", "ca n't wo n't sha n't did n't"),
        ("hadn't've who's that'll there'd", "had n't 've who 's that 'll there 'd"),
        ("ma'am o'clock o'brien l'eau", "ma'am o'clock o'brien l'eau"),
        ("rock'n'roll, rock 'n' roll, get 'em", "rock 'n' roll rock 'n' roll get 'em"),
        ("mother-in-law's bird's-eye don't-know", "mother-in-law 's bird 's eye do n't know"),
        ("T-shirt tri-colored 20-year-old two-and-a-half", "t-shirt tri-colored 20-year-old two-and-a-half"),
        ("U.S. U.S.A. flag. the end.", "u.s. u.s.a. flag the end"),
        ("1,000,000 3.14 -5 +7 -.5 1st 10am", "1,000,000 3.14 -5 +7 -.5 1st 10am"),
        ("2.5-inch 4-wheeler 0.5ms 4-5-year-old", "2.5-inch 4-wheeler 0.5 ms 4-5-year-old"),
        ("1990s '90s 80's 5'10\" tall", "1990s '90s 80 's 5 10 tall"),
        ("AT&T and R&B, r&b, black & white", "at&t and r&b r & b black & white"),
        ("em—dash en–dash ellipsis… “curly” ‘single’ it’s", "em dash en dash ellipsis curly single it 's"),
        ("Dr. No vs. Mr. T. Jan. 5th etc. (etc.)", "dr. no vs. mr. t. jan. 5th etc. -lrb- etc. -rrb-"),
        ("No. 5 said no. Fig. 3 is a fig.", "no. 5 said no fig. 3 is a fig"),
        ("the letter R.", "the letter r"),
        ("£5 €10 5¢", "# 5 $ 10 5 cents"),
        ("J. K. Rowling and J.P. Morgan", "j. k. rowling and j.p. morgan"),
        ("what?! no!! so.... ok", "what ?! no !! so ok"),
        ("dogs' tails James's his/her s/he", "dogs tails james 's his/her s/he"),
        ("[a] {b} (c)", "-lsb- a -rsb- -lcb- b -rcb- -lrb- c -rrb-"),
        ("x=1 a+b C++ #5 c@d", "x = 1 a + b c++ # 5 c @ d"),
        ("mid-air under_score foo.bar v2.1 x.509", "mid-air under_score foo.bar v2 .1 x. 509"),
        ("end of sentence.Next one", "end of sentence.next one"),
        ("tab\there  double\nline", "tab here double line"),
        ("naïve CAFÉ 東京 привет", "naïve café 東京 привет"),
        ("- -- --- . ... , ; : ' '' ` `` \" ! ?", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_words_as_stanfords_tokenizer_has_them(text, words):
    assert tokens(text) == words.split()


@given(text=st.text())
def test_words_are_lower_case_without_space(text):
    assert all(word and word == word.lower() and not any(map(str.isspace, word)) for word in tokens(text))


@given(words=st.lists(st.sampled_from(["dog", "t-shirt", "3.5", "u.s.", "'s", "n't", "red", "-lrb-"]), max_size=8))
def test_tokens_stay_as_they_are(words):
    plain = [word for word in words if word != "-lrb-"]
    assert tokens(" ".join(plain)) == plain


@given(
    words=st.lists(st.sampled_from(["A", "dog", "runs", "isn't", "1,000"]), min_size=1, max_size=6),
    mark=st.sampled_from(".,;:!?"),
)
def test_a_mark_at_the_end_does_not_count(words, mark):
    assert tokens(" ".join(words) + " " + mark) == tokens(" ".join(words))
