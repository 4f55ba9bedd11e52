"""A day of a dozen shops, sent through the front door of real services on real servers.

python -m demo
"""
