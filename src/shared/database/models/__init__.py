"""What a model is made of beside its own columns: keys, money, types, history."""
