"""What the package costs, measured beside what could stand in its place.

python -m benchmarks
"""
