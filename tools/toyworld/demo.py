"""Run the complete pipeline in the toy world."""

from pcm_plugin.commands.toyworld.demo import main

if __name__ == "__main__":
    main()
