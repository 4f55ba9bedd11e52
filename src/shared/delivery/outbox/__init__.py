"""Events as rows of the transaction that they tell of."""
