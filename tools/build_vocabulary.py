"""Build a vocabulary of the words of captions, or of pieces of words."""

from pcm_plugin.commands.build_vocabulary import main

if __name__ == "__main__":
    main()
