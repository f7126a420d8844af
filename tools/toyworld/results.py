"""All systems, and the paper's ablation, in the toy world, over several seeds."""

from pcm_plugin.commands.toyworld.results import main

if __name__ == "__main__":
    main()
