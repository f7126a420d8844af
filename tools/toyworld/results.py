"""Train and test all systems in the toy world, with several seeds."""

from pcm_plugin.commands.toyworld.results import main

if __name__ == "__main__":
    main()
