"""Embed nouns as the concepts that PCM-Net looks for in images."""

from pcm_plugin.commands.build_concepts import main

if __name__ == "__main__":
    main()
