"""Fast forms of a few plain expressions.

Every function here computes what one line of `jnp` would. The line is in its docstring, with what makes the fast form
faster and where; `tests/models/fast` compares both forms, values and gradients. The models call these functions by the
names of what they compute, so that a reader of the models need not open this folder.

Nothing here knows a model, and nothing here has parameters.
"""
