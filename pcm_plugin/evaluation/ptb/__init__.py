"""Tables of ``pcm_plugin.evaluation.ptb_tokenizer``: rules, characters, lower case."""
