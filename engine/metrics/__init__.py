"""What is measured: numpy definitions, one concept a file, each with its source.

`registry` names every metric of the project with its direction and the version of its definition.
"""
