"""Damaged inputs for every reader of files, in bounded memory and time, with a verdict for each.

    make fuzz SEED=1 INPUTS=5000 [READERS=pyskl,scores]

`trees`: an input is a small tree of files. `mutations`: how one is damaged, in its bytes or in its structure.
`readers`: a sound tree for each reader, and how the program reads it. `verdicts`: what came of one input. `workers`:
processes that cannot take more memory or time than they may. `campaign`: many inputs, shrinking, the report. Inputs
that failed once are kept in `kept/` and tried again by `test_campaign`.
"""
