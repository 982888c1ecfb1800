"""The doctor: what of Postgres, NATS and their settings would lose or stop events, each with its mend.

    source.py ─▶ SourceFacts ─▶ slot_checks.py, source_checks.py, publication_checks.py ┐
    broker.py ─▶ BrokerFacts ─▶ broker_checks.py                                        ├─▶ Finding
    publisher_probe.py ─▶ Probe, clock.py ─▶ Clock, both with their checks              │
    SourceFacts + BrokerFacts ─▶ epoch_checks.py                                        ┘

``examine.py`` puts them together. Whatever reads, reads only: the session in Postgres is
read-only, NATS is asked for what it has, and what is published to learn who may publish
bears a condition that no stream can meet. Checks take values and give findings, without I/O.
"""
