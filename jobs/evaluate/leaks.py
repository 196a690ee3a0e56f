"""Which objects of a benchmark were trained on."""

from evaluate.leaks import HASH, ID, NEAR, Leaks, not_known
from trainer.card import Card

NAMED = 8  # leaked objects that are named
WORDS = {ID: "by id", HASH: "by the hash of the file", NEAR: "as near-duplicates"}


def lines(found: Leaks | None, card: Card | None = None) -> list[str]:
    """What is printed before any figure. `found` None: nobody knows what the encoder was trained on; its `card` may say why."""
    if found is None:
        why = (card and not_known(card)) or "nothing says what was trained on"
        return [f"leak check: not known whether the benchmark was trained on: {why}; give --trained-on LIST"]
    ways = {way: ids for way, ids in found.by_way().items() if ids}
    leaked = [id for ids in ways.values() for id in ids]
    asked = [WORDS[way] for way, why_not in found.asked.items() if why_not is None]
    of = f"{found.objects:,} objects of {found.benchmark}"
    if not leaked:
        told = [f"leak check: none of {of} found among what was trained on ({found.trained}), compared {' and '.join(asked)}"]
    else:
        how = ", ".join(f"{len(ids):,} {WORDS[way]}" for way, ids in ways.items())
        named = ", ".join(leaked[:NAMED]) + (" …" if len(leaked) > NAMED else "")
        told = [f"leak check: {len(leaked):,} of {of} were trained on ({found.trained}; {how}): {named}"]
    told += [f"leak check: not compared {WORDS[way]}: {why_not}" for way, why_not in found.asked.items() if why_not is not None]
    return told
