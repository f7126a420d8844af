"""Names of scorers and tokenizers, in a module that imports none of them."""

WORD_SCORERS = ("BLEU", "ROUGE-L", "CIDEr", "METEOR", "SPICE")
"""Scorers that compare words."""
ALL_SCORERS = (*WORD_SCORERS, "CLIPScore", "diversity")
"""Names of all scorers."""
DEFAULT_SCORERS = ("BLEU", "ROUGE-L", "CIDEr")
"""Scorers that need no Java."""
JAVA_SCORERS = ("METEOR", "SPICE")
"""Scorers that need Java."""
TOKENIZERS = ("ptb", "ptb-java")
"""Tokenizers by name, the reimplementation in Python and the original Java program."""

MAIN_SCORES = ("CIDEr", "BLEU-4", "ROUGE-L")
"""Scores of the default scorers that are compared, the most informative first."""
