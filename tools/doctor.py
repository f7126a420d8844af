"""Check the environment, and print the command that repairs each problem."""

from pcm_plugin.commands.doctor import main

if __name__ == "__main__":
    main()
