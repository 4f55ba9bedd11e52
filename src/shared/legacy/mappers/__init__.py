"""Between the rows of a database and the schemas of an API."""
