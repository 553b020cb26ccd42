"""Fuzzing of everything that reads files: damaged and hostile inputs end with one line, in bounded time and memory.

    python -m fuzz --seconds 60 --seed 0                       all readers share the time
    python -m fuzz --inputs 20000 --reader model               a number of inputs for one reader
    python -m fuzz --seed 0 --reader model --replay 1234       write input 1234 to a file and read it again

An input is a valid file with one to four random changes: bit flips, truncation, unusual values, and changes that keep
the format intact, so that the code behind the parser is reached. The name of the reader, the seed and the number of the
input determine it. A reader may accept an input, in which case the result is used, or raise HandgradError with one
line. Another exception, a warning, an input that takes longer than 10 seconds, an allocation that exceeds the limit,
and a crash of the process are failures.
"""
