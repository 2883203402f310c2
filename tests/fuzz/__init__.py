"""Fuzzing: every place where bytes of a peer come in, with inputs nobody thought of. Run it with `scripts/fuzz`.

    targets/      one file per place: `make()` gives a function that takes one input and must not raise
    choices.py    how an input that drives several steps is read
    harness.py    one execution: what counts as a finding, and where it is kept
    worker.py     one target under atheris, in a process of its own
    __main__.py   all targets one after another, and the table
    corpus/       inputs worth keeping: seeds (made by seeds.py from the test vectors) and past findings

The tests replay the corpus without atheris (`test_corpus.py`), so what was found stays fixed.
"""
