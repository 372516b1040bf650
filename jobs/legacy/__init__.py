"""The commands of the scripts that this project's first users come from; docs/legacy.md."""
