"""The kill harness: nothing that was finished is lost or asked again, wherever a run is killed.

`kill.py` plays `ostinato run` in a process of its own, against a server that counts every request (`server.py`), kills it at
points that a seed chooses (the n-th request, the n-th line of the record; kill -9, SIGTERM, Ctrl-C once and twice), goes on, and
does so again until the run is complete. After every kill it compares what the server saw with what the record holds. Four ways
to go on: `resume` the run; the same `run` `again`, which has what was finished from the cache; `retry` of rows that failed; and
`resume` with several repeats a row.

    pytest tests/harness                                   # some tens of kills
    python -m tests.harness.kill --kills 300 --seed 7      # as many as you like, and a table of what was seen
"""
