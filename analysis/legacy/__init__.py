"""Result files under the names and keys of the scripts that this project's first users come from.

Values are this project's own; where a definition differs from the original's, a key `definition`
says so. What isn't measured yet is null, with the reason.
"""
