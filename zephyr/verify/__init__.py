"""Kills, cuts and freezes everything while a writer commits, and proves that nothing is lost.

    run_faults        a run: load, faults drawn from a seed, verdict      (run.py)
    ├── Field         servers, proxy, bridge and writers, all ours        (field.py)
    │   ├── Bridge    `zephyr bridge run` as a process                    (bridge.py)
    │   ├── Proxy     what stands between bridge and NATS                 (proxy.py over frames.py)
    │   └── Writer    commits at random                                   (writer.py)
    ├── FAULTS        what can happen                                     (faults.py, severe.py)
    └── judge         the stream held against Postgres                    (verdict.py)
        ├── Truth     what was committed: the WAL, by a slot of its own   (truth.py over wal.py)
        └── read      what the stream holds, message by message           (stored.py)

Nothing here imports ``bridge``: the decoder, the mapping's meaning and the reader are
written a second time, so that an error in one of them shows.
"""
