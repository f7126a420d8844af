"""Build a concept file: words and their CLIP text embeddings."""

from pcm_plugin.commands.build_concepts import main

if __name__ == "__main__":
    main()
