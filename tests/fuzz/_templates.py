"""Chat templates: programs in Jinja that come with a checkpoint's tokenizer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from equipoise.data.collate import ends_answers, render
from fuzz._mutations import spoiled_bytes, texts
from fuzz._surface import Cases

TEMPLATES = (
    "{% for message in messages %}<|{{ message['role'] }}|>{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>{% endif %}{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "{%- set ns = namespace(found=false) -%}{% for m in messages %}"
    "{{ m.role + ': ' + m.content[0].text | trim }}\n</s>{% endfor %}",
    "{% macro say(m) %}{{ m.role }}{% generation %}{{ m.content | map(attribute='text') | join }}"
    "{% endgeneration %}</s>{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}",
)
#: What would read files, run commands, use up time or memory.
ATTACKS = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('touch pwned').read() }}",
    "{{ lipsum.__globals__['os'].system('touch pwned') }}",
    "{{ joiner.__init__.__globals__ }}{{ namespace.__init__.__globals__.__builtins__.open('/etc/passwd').read() }}",
    "{{ messages.append('x') }}", "{{ messages[0].update({'role': 'x'}) }}", "{{ messages.clear() }}",
    "{{ ''|attr('__class__') }}", "{{ raise_exception.__globals__ }}", "{{ strftime_now.__globals__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}", "{{ ('%s' % messages.__class__)|safe }}",
    "{% include '/etc/passwd' %}", "{% import 'os' as os %}{{ os }}", "{% extends 'x' %}", "{{ config }}{{ request }}",
    "{{ raise_exception('no') }}", "{{ raise_exception('\x1b[31m\n\n') }}", "{% raw %}", "{% for %}", "{{",
    "{{ 1/0 }}", "{{ messages[9] }}",
    "{{ range(10**9) | length }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ [1, 2] | map('nope') | list }}",
    "{{ undefined_name.attribute }}", "answer", "", "{{ 'x' * 60000000 }}", "{{ messages | tojson }}",
    "{{ bos_token }}{{ eos_token }}",
    "{% set x = messages %}{% for m in x %}{% break %}{% endfor %}", "{{ messages[0]['content'] }}" * 50,
    "{{ ('a' * 100) | int }}",
    "{{ '%c' % 1114112 }}", "{{ '\\ud800' }}answer", "{{ 'answer' | indent(9999999) }}",
)  # fmt: skip
PIECES = st.sampled_from(
    [
        "{{ message }}", "{{ messages[0].content }}", "answer", "</s>", "{% if add_generation_prompt %}",
        "{% endif %}", "{% else %}",
        "{% for m in messages %}", "{% endfor %}", "{{ m['content'] }}", "{{ m.content[0]['text'] }}",
        "{{ loop.index }}", "{# c #}", "{% set a = 1 %}",
        "{{ a + 'b' }}", "{{ m.role.upper() }}", "{%- continue %}", "{{ raise_exception(m.role) }}",
        "{{ m | tojson }}", "\n",
    ]
)  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of two words: templates are rendered by the real class."""
    words = Tokenizer(WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")


def templates(folder: Path) -> Cases:
    words = tokenizer()

    def check(case: tuple[str, str]) -> None:
        template, said = case
        processor: Any = SimpleNamespace(tokenizer=words, chat_template=template)
        ends_answers(processor)
        messages = [{"role": role, "content": [{"type": "text", "text": said}]} for role in ("user", "assistant")]
        text = render(processor, messages)
        assert "root:x:0" not in text, "a template reads files"
        assert len(messages) == 2

    spoilt = st.sampled_from(TEMPLATES).flatmap(
        lambda text: spoiled_bytes(text.encode()).map(lambda made: made.decode(errors="replace"))
    )
    built = st.lists(PIECES | texts, max_size=8).map("".join)
    mixed = st.tuples(st.sampled_from(TEMPLATES), st.sampled_from(ATTACKS)).map("".join)
    return st.tuples(st.one_of(spoilt, built, mixed, st.sampled_from(ATTACKS)), texts), check
