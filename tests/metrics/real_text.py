"""Text that people wrote: captions of this project's own, and the sentences of the standard library's docstrings."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path

# A scene a block; the first line is the prediction, the others its references.
SCENES = """
A brown dog is running through the snow.
A brown dog runs across a snowy field.
The dog's paws kick up snow as it runs.
A dog, brown and wet, running in deep snow
dog in the snow

two men are playing chess in a park
Two older men sit at a stone table and play chess.
Men playing a game of chess outdoors, under trees.
In the park, two men are thinking about their next move.
A chess game in a city park

A woman in a red coat is waiting for the bus.
A woman wearing a red coat stands at a bus stop.
A lady with a red coat and an umbrella waits for a bus in the rain.
Someone's waiting at the bus stop, and it's raining.
A woman at a bus stop in the rain.

A train is on the tracks.
A blue and yellow train pulls into the station at 5:30 p.m.
A passenger train arriving at a small-town station.
The train isn't moving; its doors are open.
People on the platform wait for the train to stop.

A plate of food on a table.
A plate with rice, beans and a fried egg.
Rice & beans, topped with an egg, on a white plate
There's a fried egg on top of the rice.
A meal of rice, beans, and egg is served on a table.

A child is flying a kite on the beach.
A small girl flies a rainbow-colored kite at the seaside.
A girl in a yellow raincoat runs along the beach with her kite.
The kite is high above the beach (the wind must be strong).
A child with a kite, and two gulls.

A cat sleeping on a laptop.
A grey cat is asleep on the keyboard of a laptop computer.
The cat has fallen asleep on someone's laptop again!
A cat lies across an open laptop on a desk.
cat on a computer

Three boats are in the harbour.
Three fishing boats lie in a harbour at low tide.
Small boats, their paint peeling, rest on the mud.
Boats in a harbor with houses behind them
Fishing boats wait for the tide in St. Ives.

A man is riding a bicycle down a street.
A cyclist in a green jersey rides down a wet street.
The man on the bike doesn't wear a helmet.
A man bikes past parked cars in the rain.
A man on a bike, riding between two rows of cars.

A kitchen with a stove and a sink.
A small kitchen with white cupboards, a gas stove and a window.
Pots hang above the stove in this old-fashioned kitchen.
The kitchen is clean, but there's a pan in the sink.
A kitchen with a black-and-white tiled floor.

Rain is falling and thunder is heard.
Rain falls steadily while thunder rumbles in the distance.
It's raining, and there is thunder far away.
Heavy rain on a tin roof, then a clap of thunder
A thunderstorm with rain.

Birds are singing in the morning.
Several birds sing while a car passes by.
Birds chirping, a car driving past, and wind in the leaves.
A blackbird sings; other birds answer it.
Birdsong in the early morning near a road.

A crowd is cheering.
A large crowd cheers and claps after a goal.
People cheer, whistle and clap their hands in a stadium.
Applause and cheering from 20,000 people.
Loud cheering in a football stadium.

An acoustic guitar plays a slow melody.
A slow, melancholic tune played on an acoustic guitar, with soft piano chords.
Quiet guitar music that could be in the background of a sad film scene.
A fingerpicked guitar and a piano, slow and calm.
Relaxing acoustic piece in a minor key.

An electronic dance track with a strong beat.
An upbeat electronic track with a four-on-the-floor beat and 80s synthesizers.
Fast dance music: heavy bass, bright synths, no vocals.
A club track whose bass line doesn't stop for a second.
High-energy electronic music for a workout.

A rock song with a male singer.
A rock 'n' roll song with distorted guitars and a shouting male singer.
A man sings over loud electric guitars and drums.
Energetic rock music from the '70s, sung by a man.
The singer's voice is hoarse; the drums are loud.

A group of children sit in a classroom.
Children in school uniforms sit at their desks and listen to the teacher.
A classroom full of pupils, some of whom aren't paying attention.
Pupils raise their hands to answer the teacher's question.
About 30 children in a classroom.

A street sign that says stop.
A red stop sign at the corner of Main St. and 2nd Ave.
A stop sign covered with stickers.
Someone has written "eating animals" below the word STOP.
A stop sign in front of a brick building.

A horse is jumping over a fence.
A rider on a white horse jumps over a 1.60 m fence.
The horse clears the last fence easily.
A woman on horseback is jumping over an obstacle at a show.
A white horse in mid-air above a fence.

A table with fruit on it.
Apples, pears and a half-eaten banana lie on a wooden table.
There are two apples, three pears, and half of a banana.
A still life with fruit: apples, pears, a banana.
Fruit on a table next to an empty glass
"""

# Modules whose docstrings are prose.
MODULES = "argparse calendar copy datetime heapq inspect pathlib random shutil statistics subprocess tarfile threading"


def captions() -> tuple[list[str], list[list[str]]]:
    """A prediction a scene, and the references of each."""
    scenes = [scene.splitlines() for scene in SCENES.strip().split("\n\n")]
    return [scene[0] for scene in scenes], [scene[1:] for scene in scenes]


@functools.cache
def docstrings() -> tuple[list[str], list[list[str]]]:
    """Docstrings of three sentences or more: their sentences are the references, the halves of two the prediction."""
    found = [
        sentences
        for module in MODULES.split()
        for node in ast.walk(ast.parse(_source(module)))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and len(sentences := re.split(r"(?<=[.!?])\s+", ast.get_docstring(node) or "")) >= 3
    ]
    return [_crossed(*sentences[:2]) for sentences in found], found


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def _crossed(one: str, other: str) -> str:
    words, others = one.split(), other.split()
    return " ".join(words[: len(words) // 2] + others[len(others) // 2 :])
