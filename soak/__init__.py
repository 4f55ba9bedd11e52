"""The long proof: real servers, several replicas, a real fault every few seconds, nothing lost.

`make soak` (or `python -m soak`) runs it and checks itself: every event whose transaction was
committed took effect once. Producers write rows and events in one transaction and write down what
they know of it; consumers apply an effect for each event; at the end the effects in the database,
the events in the stream and what the producers wrote down are compared.
"""
