"""What `pcm_plugin.evaluation.ptb_tokenizer` knows: rules, characters, lower case."""
