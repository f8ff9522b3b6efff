"""Fixed mutations: the same seed gives the same inputs, on any machine and without atheris."""

import random

INTERESTING = (b"\0", b"\xff", b"\0\0\0\0", b"\0\0\0\x1c", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
LONGEST = 4096


def mutations(corpus, words, count, seed):
    """So many inputs, each one of the corpus with one to four changes."""
    chance = random.Random(seed)
    corpus = corpus or [b""]
    for _ in range(count):
        data = bytearray(chance.choice(corpus))
        for _ in range(chance.randint(1, 4)):
            chance.choice(CHANGES)(data, chance, corpus, words)
        yield bytes(data[:LONGEST])


def _flip(data, chance, _corpus, _words):
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _replace(data, chance, _corpus, _words):
    if data:
        data[chance.randrange(len(data))] = chance.randrange(256)


def _insert(data, chance, _corpus, words):
    at = chance.randint(0, len(data))
    data[at:at] = chance.choice((*INTERESTING, *words))


def _overwrite(data, chance, _corpus, words):
    at, new = chance.randint(0, len(data)), chance.choice((*INTERESTING, *words))
    data[at : at + len(new)] = new


def _take_out(data, chance, _corpus, _words):
    at = chance.randint(0, len(data))
    del data[at : at + chance.randint(1, 16)]


def _repeat(data, chance, _corpus, _words):
    at = chance.randint(0, len(data))
    data[at:at] = data[at : at + chance.randint(1, 64)]


def _cross(data, chance, corpus, _words):
    other = chance.choice(corpus)
    data[chance.randint(0, len(data)) :] = other[chance.randint(0, len(other)) :]


CHANGES = (_flip, _replace, _insert, _overwrite, _take_out, _repeat, _cross)
