"""What no machine here can hold: 1,000 edges and 100,000,000 users online, from measured parts. `python -m bench.simulation`.

Three kinds of numbers, never mixed up: *measured* here on the real cores, *scaled* from several such measurements along the line
they lie on, and *assumed* (how people behave, how long a part takes that runs elsewhere), each said with the figure.
"""
