"""The outermost layer of an HTTP application: ids, trace, limits, metrics, log, in one pass."""
