"""Words and whole numbers in lines of text, found as arrays: a hundred times faster than line by line."""

from dataclasses import dataclass

import numpy as np

_DIGITS = 10  # of a number; longer ones are beyond any count

_SPACE = np.zeros(256, bool)
_SPACE[[0, 9, 10, 11, 12, 13, 32]] = True
_DIGIT = np.zeros(256, bool)
_DIGIT[ord("0") : ord("9") + 1] = True


@dataclass(frozen=True)
class Lines:
    """The lines of a text that have words. `text`: its bytes and a few zeros; `words`: (w,) where each word begins;
    `first`, `length`: (n,) the number of each line's first word, and how many it has."""

    text: np.ndarray
    words: np.ndarray
    first: np.ndarray
    length: np.ndarray

    def is_space(self, at: np.ndarray) -> np.ndarray:
        """Whether there is a space (or a line's end) at these places."""
        return _SPACE[self.text[at]]

    def word(self, at: int) -> str:
        """The word that begins there, cut where it is long."""
        return bytes(self.text[at : at + 40]).split()[0].decode(errors="replace")

    def integers(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The whole numbers that begin there, and where they end: where they began, for what is none."""
        text = self.text
        signed = np.isin(text[at], (ord("+"), ord("-")))
        value, end, going = np.zeros(len(at), np.int64), at + signed, np.ones(len(at), bool)
        for _ in range(_DIGITS + 1):
            going = going & _DIGIT[text[end]]
            if not going.any():
                break
            value = np.where(going, value * 10 + (text[end] - np.int64(ord("0"))), value)
            end = end + going
        return value * np.where(text[at] == ord("-"), -1, 1), np.where(end > at + signed, end, at)


def lines_of(block: bytes) -> Lines:
    """The lines of a text; lines without words are left out."""
    text = np.frombuffer(block + b"\n\0\0\0", np.uint8)
    space = _SPACE[text]
    words = np.flatnonzero(~space & np.concatenate([[True], space[:-1]]))
    lines = np.concatenate([[0], np.flatnonzero(text == 10) + 1])
    first = np.searchsorted(words, lines)  # of the words of each line; the last entry is their end
    first, length = first[:-1], np.diff(first)
    return Lines(text, words, first[length > 0], length[length > 0])
