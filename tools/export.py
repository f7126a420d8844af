"""Export a trained captioner to a single file."""

from pcm_plugin.commands.export import main

if __name__ == "__main__":
    main()
