"""Put a trained captioner into one file, which is all that captioning needs."""

from pcm_plugin.commands.export import main

if __name__ == "__main__":
    main()
