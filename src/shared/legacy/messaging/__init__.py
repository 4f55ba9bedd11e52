"""Publishers and subscribers as classes, as the first design had them."""
