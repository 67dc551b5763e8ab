"""The special tokens: they have the first numbers in every vocabulary that has them."""

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
PAD, UNKNOWN, BEGIN, END = range(len(SPECIAL))
MASK = "<mask>"
"""Follows the others, in the vocabularies of masked language models."""
