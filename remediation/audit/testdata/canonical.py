#!/usr/bin/env python3
"""Writes canonical.jsonl: audit entries as a foreign implementation of the format hashes them.

Run it in this folder after a change to the format: python3 canonical.py >canonical.jsonl
Each line is {"entry": an entry with its hash, "canonical": the text that was hashed}, in ASCII.
"""
import hashlib
import json
import random

random.seed(1)
TEXTS = [
    "", "plain", 'quote " and backslash \\', "slash / stays", "".join(map(chr, range(0x20))), "\x7f\x80\x9f\xa0", "\u2028\u2029", "<script>&amp;</script>",
    "größer", "\u20ac \ud7ff \ue000 \ufffd \ufffe \uffff", "\U00010000 \U0001f6a8 \U0010ffff", "e\u0301 is not \u00e9", "\x00", "a\x00b", "\ufeff", "\u202e", "\\u0041 \\n",
]
NUMBERS = [0, 1, -1, 9007199254740993, 2**63 - 1, -2**63, 2**64, 10**40 + 1, -(10**300) - 7]


def value(depth):
    kind = random.randrange(8 if depth else 5)
    if kind == 0:
        return random.choice(NUMBERS)
    if kind in (1, 2):
        return random.choice(TEXTS)
    if kind == 3:
        return random.choice([True, False, None])
    if kind == 4:
        return random.randrange(-1000, 1000)
    if kind in (5, 6):
        return {key(): value(depth - 1) for _ in range(random.randrange(5))}
    return [value(depth - 1) for _ in range(random.randrange(5))]


def key():
    return "".join(random.choice("aAbz_09 \"\\\n\x01\x7f<-~.") for _ in range(random.randrange(6)))


def entry(seq, prev):
    text = TEXTS[seq % len(TEXTS)]
    detail = {"text": text, "number": NUMBERS[seq % len(NUMBERS)], "labels": [[t, t] for t in random.sample(TEXTS, 2)]}
    if seq % 3 == 0:
        detail = {key(): value(4) for _ in range(random.randrange(7))}
    return {
        "seq": seq, "time": "2026-11-%02dT03:04:05.%06dZ" % (1 + seq % 28, seq * 7919 % 10**6), "kind": "received", "actor": text, "service": random.choice(TEXTS),
        "incident": "inc-%d" % seq, "step": random.choice(TEXTS), "action": random.choice(TEXTS), "detail": detail, "prev": prev,
    }


prev = "0" * 64
for seq in range(1, 101):
    e = entry(seq, prev)
    canonical = json.dumps(e, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    prev = hashlib.sha256(canonical.encode()).hexdigest()
    print(json.dumps({"entry": dict(e, hash=prev), "canonical": canonical}))
