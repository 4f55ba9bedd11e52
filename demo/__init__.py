"""A day of a dozen shops, played through the front door of real services on real servers.

python -m demo
"""
