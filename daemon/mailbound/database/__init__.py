"""The rim of the database: `tables`, `engine`, and one file of queries for each noun."""
