"""Events as dictionaries and wrappers, as the first design had them."""
